"""The passwords of users who need no account: users/passwd, the text, and users/passwd.cdb, which userd reads.

Whoever edits holds users/lock, replaces the text and then makes the cdb of it; a crash between the two leaves an older
cdb, and the next edit, or ``qm-passwd --compile``, makes it again.  All files are their owner's alone (0600).
"""

import os
import secrets as random
from collections.abc import Callable
from typing import Final, NamedTuple

from qm.disk import cdb, hashes, lock, passwdtext
from qm.disk.passwdtext import File
from qm.errors import Permanent
from qm.wire import passwdfile, saslprep, scram, storedsecret
from qm.wire.passwdfile import Entry
from qm.wire.record import Malformed
from qm.wire.scram import Verifier
from qm.wire.storedsecret import PLAIN, Secrets
from qm.wire.userquery import Login

DIRECTORY: Final = "users"
SECRET_MAX: Final = 511  # bytes of a password; libcrypt takes no more
_APP_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # 5 bits each; none looks like another


class Served(NamedTuple):
    """Mechanisms that the entries can serve."""

    some: frozenset[bytes]  # for one entry or more
    every: frozenset[bytes]  # for each entry that has a password


class Passwords:
    """The entries of passwd.cdb, which may change at any time."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._cdb = cdb.Cdb(f"{directory}/passwd.cdb")
        self._home = os.getcwdb()

    def lookup(self, name: bytes) -> Entry | None:
        """The entry of *name*, its home absolute; raises BadCdb."""
        self._cdb.refresh()
        key = passwdfile.canonical(name)
        value = self._cdb.lookup(key) if key is not None else None
        if key is None or value is None:
            return None
        try:
            entry = passwdfile.decode(key, value)
        except Malformed as error:
            why = f"{self._cdb.path}: a value has {error}; run qm-passwd --compile"
            raise cdb.BadCdb("cannot read a database", detail=why) from error
        return entry._replace(login=entry.login._replace(home=os.path.join(self._home, entry.login.home)))

    def served(self) -> Served:
        """Raises BadCdb."""
        self._cdb.refresh()
        some, _, every = (self._cdb.lookup(b"") or b"").partition(b"\0")
        return Served(frozenset(some.split()), frozenset(every.split()))


def _canonical(name: bytes) -> bytes:
    key = passwdfile.canonical(name)
    if key is None:
        raise Permanent("not a name", detail="it has blanks, colons, backslashes or control bytes, or over 255 bytes")
    return key


def entry_of(name: bytes, directory: str = DIRECTORY) -> Entry | None:
    """The entry of *name* as it stands in users/passwd; raises Temporary if that is broken."""
    found = File(directory).entries.get(_canonical(name))
    return found[1] if found else None


def login_of(name: bytes, directory: str = DIRECTORY) -> Login | None:
    """Whom *name* logs in as; raises Temporary if users/passwd is broken."""
    entry = entry_of(name, directory)
    return entry.login if entry else None


def _change(directory: str, name: bytes, login: Login | None, change: Callable[[bytes, Secrets], Secrets]) -> None:
    """Have *name* have the secrets that *change* makes of its name and those that it has, and perhaps another *login*.

    When this returns, userd knows it, and no crash undoes it.  Raises Permanent for what can be no name or login,
    Temporary for files that cannot be read or written, and what *change* raises; then nothing is changed.
    """
    key = _canonical(name)
    with lock.held(f"{directory}/lock"):
        file = File(directory)
        found = file.entries.get(key)
        login = login or (found[1].login if found else None)
        if login is None:
            raise Permanent("a new user needs a uid, a gid and a home", detail=os.fsdecode(key))
        file.set(_checked(Entry(key, change(key, found[1].secrets if found else Secrets()), login)))
        file.write()
        file.compile()


def _verifier(secret: bytes, name: bytes, others: tuple[Verifier, ...], directory: str) -> Verifier:
    """One for *secret* that goes with the *others* of *name*: one salt for all."""
    if others:
        return scram.verifier(secret, others[0].salt, others[0].iterations)
    return scram.verifier(secret, scram.made_up_salt(passwdtext.read_salt_key(directory), name))


def put(
    name: bytes, secret: bytes, login: Login | None = None, *, apop: bool = False, directory: str = DIRECTORY
) -> None:
    """Give *name* the password *secret*, and *login* unless that is to stay as it is; app passwords stay.

    With *apop* the password itself is stored.  Raises Permanent for what can be no password, and as `_change` does.
    """
    if not 0 < len(secret) <= SECRET_MAX or any(byte in secret for byte in b"\0\r\n"):
        raise Permanent("not a password", detail=f"1 to {SECRET_MAX} bytes, no NUL, CR or LF")
    prepared = saslprep.password(secret)

    def change(key: bytes, before: Secrets) -> Secrets:
        try:
            verifier = _verifier(saslprep.prepare(secret), key, before._replace(scram=None).verifiers, directory)
        except saslprep.Prohibited:
            verifier = None  # what is no text no client of SCRAM can prove (RFC 5802 2.2)
        return before._replace(hash=PLAIN + prepared if apop else hashes.make(prepared), scram=verifier)

    _change(directory, name, login, change)


def put_app(name: bytes, label: bytes, login: Login | None = None, directory: str = DIRECTORY) -> bytes:
    """Give *name* one more password, a random one for the program that *label* says; gives it.

    Raises Permanent for no label, one that is there already and too many, and as `_change` does.
    """
    secret = "-".join("".join(random.choice(_APP_LETTERS) for _ in range(4)) for _ in range(6)).encode()
    if not storedsecret.is_label(label):
        raise Permanent("not a label", detail="1 to 40 letters, digits and . _ @ -")

    def change(key: bytes, before: Secrets) -> Secrets:
        if label in dict(before.apps):
            raise Permanent("there is an app password of that label", detail="revoke it first")
        if len(before.apps) >= storedsecret.APPS_MAX:
            raise Permanent("too many app passwords", detail=f"{storedsecret.APPS_MAX} are the most")
        verifier = _verifier(secret, key, before.verifiers, directory)
        return before._replace(apps=(*before.apps, (label, verifier)))

    _change(directory, name, login, change)
    return secret


def revoke(name: bytes, label: bytes, directory: str = DIRECTORY) -> None:
    """Forget the app password *label* of *name*; raises Permanent if there is none, and as `_change` does."""

    def change(_: bytes, before: Secrets) -> Secrets:
        rest = tuple(app for app in before.apps if app[0] != label)
        if len(rest) == len(before.apps):
            raise Permanent("no such app password", detail=os.fsdecode(label))
        return before._replace(apps=rest)

    if login_of(name, directory) is None:
        raise _nobody(name, directory)
    _change(directory, name, None, change)


def allow_certificate(name: bytes, login: Login | None = None, directory: str = DIRECTORY) -> None:
    """Let who has a client certificate in the name *name* log in; raises as `_change` does."""
    _change(directory, name, login, lambda _, before: before._replace(external=True))


def _checked(entry: Entry) -> Entry:
    """*entry* if it can be read back; raises Permanent."""
    try:
        if passwdfile.decode(entry.name, passwdfile.encode(entry)) == entry:
            return entry
        why = "cannot be stored"
    except Malformed as error:
        why = str(error)
    raise Permanent("cannot store this user", detail=why)


def _nobody(name: bytes, directory: str) -> Permanent:
    return Permanent("no such user", detail=f"{os.fsdecode(name)} is not in {directory}/passwd")


def delete(name: bytes, directory: str = DIRECTORY) -> None:
    """Forget *name*; raises Permanent if there is none of that name, Temporary for files."""
    key = _canonical(name)
    with lock.held(f"{directory}/lock"):
        file = File(directory)
        if key not in file.entries:
            raise _nobody(key, directory)
        count, _ = file.entries.pop(key)
        del file.lines[count - 1]
        file.write()
        file.compile()


def compile_text(directory: str = DIRECTORY) -> None:
    """Make passwd.cdb of users/passwd after somebody edited it by hand; raises Temporary, and the old cdb stays."""
    with lock.held(f"{directory}/lock"):
        File(directory).compile()
