"""What is stored of a name's secrets: the second field of a line of users/passwd, words with a blank between.

    $argon2id$...                                the password's hash, of any kind that qm.disk.hashes knows; at most one
    {SCRAM-SHA-256}iterations,salt,key,key       its verifier, as Dovecot writes it; at most one
    {APP}label,iterations,salt,key,key           an app password's, which has no hash
    {EXTERNAL}                                   a client certificate in this name may log in
    {PLAIN}password                              the password as it is, in the place of its hash; the last word

A client of SCRAM is told one salt and one number of iterations, whichever of its passwords it knows: so all verifiers
of a name have the same.
"""

import re
from typing import Final, NamedTuple

from qm.wire import scram
from qm.wire.record import Malformed
from qm.wire.scram import Verifier

HASH_MAX: Final = 1024  # bytes; a stored plain password is shorter
APPS_MAX: Final = 16  # app passwords of one name
PLAIN: Final = b"{PLAIN}"  # before a password that is stored as it is
_SCRAM: Final = b"{SCRAM-SHA-256}"
_APP: Final = b"{APP}"
_EXTERNAL: Final = b"{EXTERNAL}"
_LABEL: Final = re.compile(rb"[A-Za-z0-9._@-]{1,40}")
# What qm-passwd makes: 120 bits, so it needs no slow hash; people's own passwords hardly look so
_APP_SECRET: Final = re.compile(rb"(?:[a-km-np-z2-9]{4}-){5}[a-km-np-z2-9]{4}")


class Secrets(NamedTuple):
    hash: bytes = b""  # of the password, or PLAIN and the password; b"" if there is none
    scram: Verifier | None = None
    apps: tuple[tuple[bytes, Verifier], ...] = ()  # by their labels
    external: bool = False

    def __repr__(self) -> str:
        return "Secrets()"

    @property
    def plain(self) -> bytes:
        """The password itself; b"" where it is not stored."""
        return self.hash.removeprefix(PLAIN) if self.hash.startswith(PLAIN) else b""

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        return (*((self.scram,) if self.scram else ()), *(verifier for _, verifier in self.apps))


def is_label(label: bytes) -> bool:
    return _LABEL.fullmatch(label) is not None


def is_app_secret(secret: bytes) -> bool:
    """Whether *secret* looks like an app password of ours."""
    return _APP_SECRET.fullmatch(secret) is not None


def mechanisms(secrets: Secrets) -> frozenset[bytes]:
    """The SASL mechanisms that *secrets* can serve with each password."""
    found = set()
    if secrets.hash or secrets.apps:
        found |= {b"PLAIN", b"LOGIN"}
    if secrets.plain and not secrets.apps:
        found.add(b"CRAM-MD5")
    if secrets.verifiers and (secrets.scram or not secrets.hash):
        found.add(b"SCRAM-SHA-256")
    return frozenset(found | {b"EXTERNAL"} if secrets.external else found)


def text(secrets: Secrets) -> bytes:
    words = [] if secrets.plain or not secrets.hash else [secrets.hash]
    words += [_SCRAM + scram.text(secrets.scram)] if secrets.scram else []
    words += [b"%b%b,%b" % (_APP, label, scram.text(verifier)) for label, verifier in secrets.apps]
    words += [_EXTERNAL] if secrets.external else []
    words += [secrets.hash] if secrets.plain else []
    return b" ".join(words)


def parse(field: bytes) -> Secrets:
    """The reverse of `text`; raises Malformed."""
    before, mark, plain = _split(field)
    secrets = Secrets(mark + plain)
    for word in before.split():
        secrets = _with(secrets, word)
    if len({verifier[:2] for verifier in secrets.verifiers}) > 1:
        raise Malformed("SCRAM: the verifiers of one name have different salts or iterations")
    if len(secrets.hash) > HASH_MAX or secrets.hash == PLAIN:
        raise Malformed("the hash or password is too long, or empty")
    if secrets == Secrets():
        raise Malformed("no secret: empty")
    return secrets


def _split(field: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before {PLAIN}, itself, and the password, which may hold anything."""
    if field.startswith(PLAIN):
        return b"", PLAIN, field.removeprefix(PLAIN)
    before, mark, plain = field.partition(b" " + PLAIN)
    return before, mark[1:], plain


def _with(secrets: Secrets, word: bytes) -> Secrets:
    if word == _EXTERNAL:
        return secrets._replace(external=True)
    if word.startswith(_SCRAM):
        if secrets.scram:
            raise Malformed("two {SCRAM-SHA-256}")
        return secrets._replace(scram=scram.parse(word.removeprefix(_SCRAM)))
    if word.startswith(_APP):
        label, _, verifier = word.removeprefix(_APP).partition(b",")
        if not is_label(label) or label in dict(secrets.apps) or len(secrets.apps) >= APPS_MAX:
            raise Malformed(f"an app password without its own label, or more than {APPS_MAX}")
        return secrets._replace(apps=(*secrets.apps, (label, scram.parse(verifier))))
    if word.startswith(b"{") or secrets.hash:
        raise Malformed("an unknown {WORD}, or two hashes")
    return secrets._replace(hash=word)
