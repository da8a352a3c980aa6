"""What userd decides: whether an address has a mailbox, whose account may log in, which login was verified just now."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from hashlib import blake2b, md5
from typing import TYPE_CHECKING, Final, NamedTuple

from qm.wire import passwdfile, route, scram
from qm.wire.assign import User
from qm.wire.envelope import ADDRESS_MAX
from qm.wire.passwdfile import Entry
from qm.wire.record import Malformed
from qm.wire.storedsecret import APPS_MAX, Secrets
from qm.wire.userquery import AskSender, Exists, Login, Method, Verdict

if TYPE_CHECKING:
    from qm.unix.accounts import Account, Shadow  # ctypes costs a megabyte; only who needs it pays

LOGINS_MAX: Final = 10_000  # verified logins that are remembered; about 1 MB
VERIFIERS: Final = APPS_MAX + 1  # so many are computed with for every proof, whoever has how many
_YES: Final = Exists(Verdict.YES, b"")
_NO: Final = Exists(Verdict.NO, b"no mailbox here by that name")
_NOBODYS: Final = scram.Verifier(scram.ITERATIONS, bytes(scram.SALT_BYTES), bytes(32), bytes(32))


def exists(
    rules: route.Rules, address: bytes, find: Callable[[bytes], User], has_mailbox: Callable[[User], bool]
) -> Exists:
    """Whether mail for *address* would be taken, as send, lspawn and local will decide.

    Raises what *find* and *has_mailbox* raise when they cannot tell now.
    """
    if len(address) > ADDRESS_MAX:
        return _NO
    where = route.route(rules, address)
    if isinstance(where, route.Remote):
        return _YES  # not ours to say
    local = where.address.rpartition(b"@")[0]
    return _YES if local and has_mailbox(find(local)) else _NO


def senders(lines: Iterable[bytes]) -> Mapping[bytes, frozenset[bytes]]:
    """control/authsenders, ``login:address``, ``login:@domain`` or ``login:*`` a line, by login; raises Malformed."""
    found: dict[bytes, set[bytes]] = {}
    for line in lines:
        login, colon, allowed = (part.strip() for part in line.lower().partition(b":"))
        if not colon or not login or not (allowed == b"*" or b"@" in allowed):
            raise Malformed("not login:address, login:@domain or login:*")
        found.setdefault(login, set()).add(allowed)
    return {login: frozenset(allowed) for login, allowed in found.items()}


def may_send(
    rules: route.Rules,
    allowed: Mapping[bytes, frozenset[bytes]],
    question: AskSender,
    find: Callable[[bytes], User],
    has_mailbox: Callable[[User], bool],
) -> Exists:
    """Whether the login may write mail from the address: it is his by control/authsenders, or mail for it is his.

    Raises what *find* and *has_mailbox* raise when they cannot tell now.
    """
    name, address = question.name.lower(), question.address.lower()
    his = allowed.get(name, frozenset())
    domain = b"@" + address.rpartition(b"@")[2]
    if not address or address == name or his & {address, domain, b"*"}:
        return _YES  # nobody's address is everybody's: reports have it (RFC 3461 section 6)
    where = route.route(rules, question.address) if len(address) <= ADDRESS_MAX else None
    local = where.address.rpartition(b"@")[0] if isinstance(where, route.Local) else b""
    if local:
        user = find(local)
        if (user.uid, user.home.rstrip(b"/")) == (question.uid, question.home.rstrip(b"/")) and has_mailbox(user):
            return _YES
    return Exists(Verdict.NO, b"not your address")


class Kind(Enum):
    """Who may say that a password is right."""

    PASSWD = b"passwd"  # users/passwd.cdb
    SYSTEM = b"system"  # this machine's accounts
    PAM = b"pam"  # service qm
    PROGRAM = b"program"  # a checkpassword
    OAUTHBEARER = b"oauthbearer"  # one that looks at tokens


class Backend(NamedTuple):
    """A line of control/logins."""

    kind: Kind
    argv: tuple[bytes, ...] = ()


DEFAULT: Final = (Backend(Kind.PASSWD), Backend(Kind.SYSTEM))


def backends(lines: Iterable[bytes]) -> tuple[Backend, ...]:
    """What control/logins says; raises Malformed."""
    found = []
    for line in lines:
        word, *argv = line.split()
        try:
            kind = Kind(word)
        except ValueError as error:
            raise Malformed("not passwd, system, pam, program or oauthbearer") from error
        if bool(argv) != (kind in (Kind.PROGRAM, Kind.OAUTHBEARER)):
            raise Malformed(f"{kind.value.decode()}: a program is missing, or none belongs here")
        if argv[:1] == [b"checkpassword"]:
            raise Malformed("checkpassword asks userd; another's needs its path")
        found.append(Backend(kind, tuple(argv)))
    return tuple(found) or DEFAULT


def of_account(account: Account, shadow: Shadow, today: int) -> Entry | None:
    """The entry of an account that may log in with a password; *today* in days since 1970 (shadow(5))."""
    locked = not shadow.hash or shadow.hash[:1] in b"!*"
    expired = 0 <= shadow.expires_day <= today
    stale = (
        shadow.changed_day > 0
        and shadow.days_max >= 0
        and shadow.days_inactive >= 0
        and shadow.changed_day + shadow.days_max + shadow.days_inactive < today
    )
    if account.uid == 0 or locked or expired or stale:
        return None
    login = Login(account.name, account.uid, account.gid, account.home, account.shell)
    return Entry(account.name, Secrets(shadow.hash), login)


def digest(entry: Entry | None, method: Method, given: bytes, challenge: bytes) -> bool:
    """Whether *given* answers *challenge*, for which the password must be stored as it is.

    APOP: RFC 1939 section 7; CRAM_MD5: RFC 2195 section 2.
    """
    secret = entry.secrets.plain if entry is not None else b""
    if method is Method.APOP:
        wanted = md5(challenge + secret, usedforsecurity=False).hexdigest()
    else:
        wanted = hmac.digest(secret, challenge, "md5").hex()
    return hmac.compare_digest(wanted.encode(), given.lower()) and bool(secret)


def salt(entry: Entry | None, key: bytes, name: bytes) -> tuple[bytes, int]:
    """Salt and iterations for *name*, whether anybody has it or not."""
    verifiers = entry.secrets.verifiers if entry is not None else ()
    if verifiers:
        return verifiers[0].salt, verifiers[0].iterations
    return scram.made_up_salt(key, name), scram.ITERATIONS


def proven(entry: Entry | None, proof: bytes, auth_message: bytes) -> bytes:
    """The server's signature, if *proof* was made with one of the passwords of *entry*; else b"".

    It computes the same whatever comes of it, so that time tells neither who is known nor how many passwords he has.
    """
    verifiers: Sequence[scram.Verifier] = entry.secrets.verifiers if entry is not None else ()
    signature = b""
    try:
        decoded = scram.decoded(proof)
    except Malformed:
        decoded = b""
    if len(decoded) != scram.KEY_BYTES:
        return b""
    for verifier in (*verifiers, *[_NOBODYS] * VERIFIERS)[:VERIFIERS]:
        right = scram.proves(verifier.stored_key, auth_message, decoded)
        candidate = scram.signature(verifier.server_key, auth_message)
        if right and verifier is not _NOBODYS:
            signature = candidate
    return signature


def mechanisms(
    kinds: Collection[Kind], some: frozenset[bytes], every: frozenset[bytes], wanted: Collection[bytes]
) -> tuple[bytes, ...]:
    """What to offer: of what the stores can serve, what serves every login; or, of *wanted*, what serves some.

    *some*, *every*: what users/passwd can serve for an entry, for each entry.
    """
    others = {Kind.SYSTEM, Kind.PAM, Kind.PROGRAM} & set(kinds)  # that want the password itself
    can = {b"PLAIN", b"LOGIN"} if others else set()
    can |= some | {b"PLAIN", b"LOGIN"} if Kind.PASSWD in kinds else set()
    can |= {b"OAUTHBEARER"} if Kind.OAUTHBEARER in kinds else set()
    if wanted:
        return tuple(sorted(can & {name.upper() for name in wanted}))
    everywhere = frozenset() if others else every
    return tuple(sorted(can & (everywhere | {b"PLAIN", b"LOGIN", b"EXTERNAL", b"OAUTHBEARER"})))


class Remembered:
    """Passwords that were verified a short time ago, so that the next login need not pay for the hash.

    Kept is a keyed hash of password and entry: memory that leaks tells no password, and an entry that has changed is
    no hit.  Only passwords of entries: a proof is fresh each time, and what others judge may be good for once.
    """

    def __init__(self, key: bytes) -> None:
        """*key*: 32 random bytes of this process."""
        self._key = key
        self._until_s: dict[bytes, float] = {}  # by tag, oldest first

    def tag(self, entry: Entry, secret: bytes) -> bytes:
        fields = b"\0".join((entry.name, passwdfile.encode(entry), secret))
        return blake2b(fields, key=self._key, digest_size=32).digest()

    def knows(self, tag: bytes, now_s: float) -> bool:
        return now_s < self._until_s.get(tag, 0.0)

    def add(self, tag: bytes, until_s: float) -> None:
        self._until_s.pop(tag, None)
        if len(self._until_s) >= LOGINS_MAX:
            del self._until_s[next(iter(self._until_s))]
        self._until_s[tag] = until_s

    def forget(self) -> None:
        self._until_s.clear()
