"""What is asked of userd, and what it answers (docs/INTERNALS.md 1.7): both sides of users/socket.

A secret is in no repr, since what fails may be printed.
"""

from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

from qm.wire.assign import ID_MAX
from qm.wire.record import Malformed, number, pack, unpack

COUNT_MAX: Final = 1_000_000  # recipients, seconds and iterations are no more
MARKS_MAX: Final = 2000  # domains of one message that are told apart
_EXISTS: Final = b"exists"
_LOGIN: Final = b"login"
_MECHANISMS: Final = b"mechanisms"
_SCRAM: Final = b"scram"
_SENDER: Final = b"sender"
_SPEND: Final = b"spend"


class AskExists(NamedTuple):
    """Would mail for *address* be taken?"""

    address: bytes


class Method(bytes, Enum):
    """What the secret of an AskLogin is, and what its challenge."""

    PASSWORD = b"password"  # the password; no challenge
    APOP = b"apop"  # a digest in hex; the banner (RFC 1939 section 7)
    CRAM_MD5 = b"cram-md5"  # a digest in hex; the challenge (RFC 2195)
    SCRAM_SHA_256 = b"scram-sha-256"  # the proof in base64; the AuthMessage (RFC 5802 section 3)
    EXTERNAL = b"external"  # nothing: TLS has verified a certificate of that name
    OAUTHBEARER = b"oauthbearer"  # the token; no challenge, and the name may be empty


class AskLogin(NamedTuple):
    """May *name* log in, who comes from *address*?"""

    method: Method
    name: bytes
    secret: bytes
    challenge: bytes
    address: bytes  # as TCPREMOTEIP has it; empty if nobody knows

    def __repr__(self) -> str:
        return f"AskLogin({self.method.name}, {self.name!r})"


class AskScram(NamedTuple):
    """What *name* needs to make a SCRAM proof; a name that nobody has gets an answer too."""

    name: bytes


class AskMechanisms(NamedTuple):
    """Which SASL mechanisms can the stores serve?"""


class AskSender(NamedTuple):
    """May the login *name*, which is that uid in that home, write mail from *address*?"""

    name: bytes
    uid: int
    home: bytes
    address: bytes


class AskSpend(NamedTuple):
    """May the login *name* send one message more, to so many recipients?

    *marks* tell the recipients' domains apart (`domain_mark`).
    """

    name: bytes
    recipients: int
    marks: tuple[bytes, ...]


class Verdict(bytes, Enum):
    YES = b"yes"
    NO = b"no"
    LATER = b"later"


class Exists(NamedTuple):
    """The answer to AskExists and AskSender."""

    verdict: Verdict
    text: bytes  # for the peer; empty for YES


class Login(NamedTuple):
    """Yes: who to be, and where."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    shell: bytes
    name: bytes = b""  # what AskSender and AskSpend call this login
    signature: bytes = b""  # SCRAM's: in base64, for the client


class Refused(NamedTuple):
    why: bytes  # for the log
    delay_s: int = 0  # the peer must wait so long for its answer
    unchecked: bool = False  # there were too many failures; the secret was not looked at


class Later(NamedTuple):
    """Nobody can tell now."""

    why: bytes


class Scram(NamedTuple):
    salt: bytes  # base64
    iterations: int


class Mechanisms(NamedTuple):
    names: tuple[bytes, ...]


class Spent(NamedTuple):
    """The answer to AskSpend: YES, or LATER with the limit that is reached; *first*: nobody was told yet this hour."""

    verdict: Verdict
    text: bytes
    first: bool = False


Question = AskExists | AskLogin | AskScram | AskMechanisms | AskSender | AskSpend
LoginAnswer = Login | Refused | Later
ScramAnswer = Scram | Later
_KINDS: Final[dict[type, bytes]] = {
    AskExists: _EXISTS,
    AskLogin: _LOGIN,
    AskScram: _SCRAM,
    AskMechanisms: _MECHANISMS,
    AskSender: _SENDER,
    AskSpend: _SPEND,
}


def domain_mark(domain: bytes) -> bytes:
    """*domain* in 12 characters: a record has room for those of a thousand recipients."""
    return blake2b(domain.lower(), digest_size=6).hexdigest().encode()


def marks(domains: Iterable[bytes]) -> tuple[bytes, ...]:
    """What AskSpend says of *domains*."""
    return tuple(sorted({domain_mark(domain) for domain in domains}))[:MARKS_MAX]


def _field(value: object) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, tuple):
        return b",".join(value)
    assert isinstance(value, bytes)
    return value


def pack_question(question: Question) -> bytes:
    """Raises ValueError if a field holds a NUL."""
    return pack(_KINDS[type(question)], *map(_field, question))


def unpack_question(record: bytes) -> Question:
    """Raises Malformed."""
    kind = record.partition(b"\0")[0]
    if kind == _EXISTS:
        return AskExists(unpack(record, 2)[1])
    if kind == _LOGIN:
        return _login(unpack(record, 6))
    if kind == _SCRAM:
        return AskScram(unpack(record, 2)[1])
    if kind == _MECHANISMS:
        unpack(record, 1)
        return AskMechanisms()
    if kind == _SENDER:
        _, name, uid, home, address = unpack(record, 5)
        return AskSender(name, number(uid, ID_MAX), home, address)
    if kind == _SPEND:
        _, name, recipients, marks = unpack(record, 4)
        return AskSpend(name, number(recipients, COUNT_MAX), tuple(filter(None, marks.split(b",")))[:MARKS_MAX])
    raise Malformed("not a question")


def _login(fields: Iterable[bytes]) -> AskLogin:
    _, method, name, secret, challenge, address = fields
    try:
        return AskLogin(Method(method), name, secret, challenge, address)
    except ValueError as error:
        raise Malformed("not a method") from error


def pack_exists(answer: Exists) -> bytes:
    return pack(answer.verdict.value, answer.text)


def unpack_exists(record: bytes) -> Exists:
    """Raises Malformed."""
    verdict, text = unpack(record, 2)
    return Exists(_verdict(verdict), text)


def _verdict(field: bytes) -> Verdict:
    try:
        return Verdict(field)
    except ValueError as error:
        raise Malformed("not a verdict") from error


def pack_login(answer: LoginAnswer) -> bytes:
    if isinstance(answer, Login):
        return pack(b"ok", *map(_field, answer))
    if isinstance(answer, Refused):
        return pack(b"bad", answer.why, b"%d" % answer.delay_s, b"%d" % answer.unchecked)
    return pack(b"later", answer.why)


def unpack_login(record: bytes) -> LoginAnswer:
    """Raises Malformed; nobody logs in as uid 0."""
    kind = record.partition(b"\0")[0]
    if kind == b"ok":
        _, user, uid, gid, home, shell, name, signature = unpack(record, 8)
        login = Login(user, number(uid, ID_MAX), number(gid, ID_MAX), home, shell, name, signature)
        if login.uid == 0:
            raise Malformed("uid 0")
        return login
    if kind == b"bad":
        _, why, delay_s, unchecked = unpack(record, 4)
        return Refused(why, number(delay_s, COUNT_MAX), number(unchecked, 1) > 0)
    if kind == b"later":
        return Later(unpack(record, 2)[1])
    raise Malformed("not an answer")


def pack_scram(answer: ScramAnswer) -> bytes:
    if isinstance(answer, Later):
        return pack(b"later", answer.why)
    return pack(b"ok", answer.salt, b"%d" % answer.iterations)


def unpack_scram(record: bytes) -> ScramAnswer:
    """Raises Malformed."""
    if record.startswith(b"later\0"):
        return Later(unpack(record, 2)[1])
    kind, salt, iterations = unpack(record, 3)
    if kind != b"ok":
        raise Malformed("not an answer")
    return Scram(salt, number(iterations, COUNT_MAX))


def pack_mechanisms(answer: Mechanisms) -> bytes:
    return pack(b" ".join(answer.names))


def unpack_mechanisms(record: bytes) -> Mechanisms:
    """Raises Malformed."""
    return Mechanisms(tuple(unpack(record, 1)[0].split()))


def pack_spent(answer: Spent) -> bytes:
    return pack(answer.verdict.value, answer.text, b"%d" % answer.first)


def unpack_spent(record: bytes) -> Spent:
    """Raises Malformed."""
    verdict, text, first = unpack(record, 3)
    return Spent(_verdict(verdict), text, number(first, 1) > 0)
