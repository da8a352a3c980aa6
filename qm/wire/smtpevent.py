"""What an SMTP server is told by its protocol (qm.wire.smtp)."""

from enum import Enum
from typing import Final, NamedTuple

from qm.wire.smtpreply import Reply


class Hello(NamedTuple):
    name: bytes
    extended: bool


class Mail(NamedTuple):
    sender: bytes  # without quotes; empty: the null reverse-path
    size: int = 0  # as declared, in bytes; 0: not said
    eight_bit: bool = False
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""
    requiretls: bool = False
    auth: bytes = b""  # RFC 4954 5, xtext as given: who submitted it first, as the client has it; <>: nobody knows


class Rcpt(NamedTuple):
    recipient: bytes  # without quotes
    notify: bytes = b""
    orcpt: bytes = b""


class Start(NamedTuple):
    """DATA, or the first BDAT: answer GO or refuse."""

    chunking: bool = False


class Text(NamedTuple):
    """A piece of the message, with LF line ends."""

    text: bytes


class Piece(NamedTuple):
    """A BDAT that is not the last has come whole."""


class End(NamedTuple):
    """The message has come whole; what is answered now is the promise."""


class Bdat(NamedTuple):
    """A chunk is announced; the protocol's own, which makes Start, Piece or End of it."""

    octets: int
    last: bool


class Reset(NamedTuple):
    """RSET."""


class Noop(NamedTuple):
    """NOOP."""


class Help(NamedTuple):
    """HELP."""


class Vrfy(NamedTuple):
    """VRFY."""


class Quit(NamedTuple):
    """QUIT."""


class StartTls(NamedTuple):
    """STARTTLS: refuse it, or let this protocol object go and begin another when the peer is under TLS (RFC 3207 4)."""


class Auth(NamedTuple):
    """AUTH: 334 asks for a Response, any other answer ends the exchange (RFC 4954 4)."""

    mechanism: bytes  # as written
    initial: bytes | None  # response, as it came; None: there is none

    def __repr__(self) -> str:
        return f"Auth({self.mechanism!r})"  # the rest is for nobody's log


class Response(NamedTuple):
    """A line of an exchange, without its line end; answer it as AUTH."""

    line: bytes

    def __repr__(self) -> str:
        return "Response()"


class Rejected(NamedTuple):
    """*line*, or nothing in particular, is answered *reply* by the protocol itself."""

    line: bytes
    reply: Reply


class Signal(Enum):
    NEED_DATA = 1  # send what is outgoing, then call `receive`
    END = 2  # nothing more will come


NEED_DATA: Final = Signal.NEED_DATA
END: Final = Signal.END

Command = Hello | Mail | Rcpt | Start | Bdat | Reset | Noop | Help | Vrfy | Quit | StartTls | Auth
Event = Command | Response | Text | Piece | End | Rejected | Signal
ANSWERED: Final = frozenset(
    (Hello, Mail, Rcpt, Start, Piece, End, Reset, Noop, Help, Vrfy, Quit, StartTls, Auth, Response)
)
