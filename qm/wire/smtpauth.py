"""Our logins at relays: control/smtpauth, and what of it is given to the one process that talks to a relay.

A line is ``relay[:port][:guard] name password``; the relay and its port, 25 if none is said, are those of a line of
smtproutes.  The password is all that follows the blank after the name.  The guard says what the session must be before
a password is used there; it is in Guard, and ``verify`` where none is said.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.wire import smtproute
from qm.wire.record import Malformed, pack, unpack
from qm.wire.smtproute import SMTP_PORT, Destination
from qm.wire.tlspolicy import Demand, Level

LOGINS_MAX: Final = 200  # lines; each is a descriptor of rspawn's
TEXT_MAX: Final = 1000  # bytes of a name or a password
_LIVELY: Final = frozenset((Level.ENCRYPT, Level.VERIFY, Level.DANE))


class Guard(Enum):
    VERIFY = b"verify"  # TLS, and a certificate for the relay's name
    ENCRYPT = b"encrypt"  # TLS with whomever
    CLEAR = b"clear"  # as control/tlspolicy has it; a password itself never in clear
    PLAIN = b"plain"  # as control/tlspolicy has it, and that too


class Login(NamedTuple):
    name: bytes
    password: bytes
    guard: Guard = Guard.VERIFY

    def __repr__(self) -> str:
        return f"Login({self.name!r})"  # the rest is for nobody's log


Relay = tuple[bytes, int]  # host and port of a Destination


class BadLogin(Temporary):
    """A line of smtpauth that means nothing; which one it is is said by its number, for anything else may be secret."""


def _bad(entry: int, why: str) -> BadLogin:
    return BadLogin("a control file is broken", detail=f"control/smtpauth: entry {entry}: {why}")


def _relay(entry: int, where: bytes) -> tuple[Relay, Guard]:
    guard = Guard.VERIFY
    head, _, word = where.rpartition(b":")
    if head and word in {known.value for known in Guard}:
        where, guard = head, Guard(word)
    host, text = smtproute.split(where) or (b"", b"")
    port = smtproute.parse_port(text) if text else SMTP_PORT
    if not host or port is None:
        raise _bad(entry, "it does not begin with relay:port, or relay:port:guard")
    return (host.lower(), port), guard


def parse(lines: Iterable[bytes]) -> Mapping[Relay, Login]:
    """The logins, by relay; of two for one relay the last counts.  Raises BadLogin."""
    found: dict[Relay, Login] = {}
    for entry, line in enumerate(lines, 1):
        where, _, rest = line.partition(b" ")
        relay, guard = _relay(entry, where)
        name, _, password = rest.lstrip(b" ").partition(b" ")
        if not name or not password:
            raise _bad(entry, "not relay:port, a name and a password, with blanks between")
        if len(name) > TEXT_MAX or len(password) > TEXT_MAX:
            raise _bad(entry, f"a name or a password of more than {TEXT_MAX} bytes")
        found[relay] = Login(name, password, guard)
    if len(found) > LOGINS_MAX:
        raise _bad(LOGINS_MAX + 1, f"more than {LOGINS_MAX} relays")
    return found


def pack_login(login: Login) -> bytes:
    return pack(login.name, login.password, login.guard.value)


def unpack_login(record: bytes) -> Login:
    """Raises Malformed."""
    name, password, guard = unpack(record, 3)
    try:
        return Login(name, password, Guard(guard))
    except ValueError as error:
        raise Malformed("a login with a bad guard") from error


def demand(given: Demand, guard: Guard, destination: Destination, host: bytes) -> Demand:
    """*given*, or more, so that a session with *host* may see the password."""
    if guard in (Guard.CLEAR, Guard.PLAIN) or (guard is Guard.ENCRYPT and given.level in _LIVELY and not given.trial):
        return given
    if guard is Guard.ENCRYPT:
        return Demand(Level.ENCRYPT, b"smtpauth")
    if given.level in (Level.VERIFY, Level.DANE) and not given.trial:
        return given
    return Demand(Level.VERIFY, b"smtpauth", tuple(dict.fromkeys((host.lower(), destination.host))))
