"""What a SASL exchange consists of, and what its mechanisms are written with (see qm.wire.sasl).

A mechanism is a generator: it yields what is to be sent or asked, is sent what comes back, and returns how it ends.
"""

from collections.abc import Collection, Generator, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple

from qm.wire.userquery import AskLogin, AskScram, Later, Login, LoginAnswer, Refused, Scram, ScramAnswer

NONCE_MIN: Final = 16  # characters: of hexadecimal digits 64 bits, the least that nobody guesses
METHOD_MAX: Final = 20  # bytes of a mechanism's name (RFC 4422 3.1)
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Peer(NamedTuple):
    """Whom we talk to, as the one who serves the connection knows it."""

    address: bytes  # TCPREMOTEIP
    host: bytes  # our own name, for CRAM-MD5's challenge
    nonce: bytes  # NONCE_MIN or more hexadecimal digits, new for each exchange
    offered: Collection[bytes]  # what `sasl.mechanisms` gave for this connection
    bindings: Mapping[bytes, bytes] = _NOTHING  # channel bindings by their type (RFC 5056)
    client: bytes = b""  # the name in a client certificate that TLS has verified


class Fault(Enum):
    """Why an exchange failed; in brackets what SMTP says (RFC 4954)."""

    CANCELLED = auto()  # the client's * (501)
    MALFORMED = auto()  # 501 5.5.2
    TOO_LONG = auto()  # 500 5.5.6
    UNKNOWN = auto()  # a mechanism that was not offered (504 5.5.4)
    WRONG = auto()  # 535 5.7.8
    LOCKED = auto()  # too many failures; the secret was not looked at (454 4.7.0)
    LATER = auto()  # 454 4.7.0


class Challenge(NamedTuple):
    line: bytes  # base64


class Done(NamedTuple):
    login: Login


class Refusal(NamedTuple):
    fault: Fault
    why: bytes  # for the log
    delay_s: int = 0  # the client must wait so long for its answer


class Bad(Exception):
    """The exchange ends here."""

    def __init__(self, why: bytes, fault: Fault = Fault.MALFORMED) -> None:
        super().__init__(why)
        self.why = why
        self.fault = fault


class Say(NamedTuple):
    """A challenge before it is base64."""

    text: bytes


End = Done | Refusal
Said = bytes | LoginAnswer | ScramAnswer
Conversation = Generator[Say | AskLogin | AskScram, Said, End]


def say(text: bytes) -> Generator[Say | AskLogin | AskScram, Said, bytes]:
    """Send a challenge; gives the response."""
    said = yield Say(text)
    assert isinstance(said, bytes)
    return said


def ask(question: AskLogin) -> Generator[Say | AskLogin | AskScram, Said, LoginAnswer]:
    answer = yield question
    assert isinstance(answer, Login | Refused | Later)
    return answer


def ask_scram(question: AskScram) -> Generator[Say | AskLogin | AskScram, Said, ScramAnswer]:
    answer = yield question
    assert isinstance(answer, Scram | Later)
    return answer


def ended(answer: LoginAnswer) -> End:
    """How an exchange ends whose question was answered so."""
    if isinstance(answer, Login):
        return Done(answer)
    if isinstance(answer, Later):
        return Refusal(Fault.LATER, answer.why)
    return Refusal(Fault.LOCKED if answer.unchecked else Fault.WRONG, answer.why, answer.delay_s)
