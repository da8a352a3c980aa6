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


class Rejected(NamedTuple):
    """*line*, or nothing in particular, is answered *reply* by the protocol itself."""

    line: bytes
    reply: Reply


class Signal(Enum):
    NEED_DATA = 1  # send what is outgoing, then call `receive`
    END = 2  # nothing more will come


NEED_DATA: Final = Signal.NEED_DATA
END: Final = Signal.END

Command = Hello | Mail | Rcpt | Start | Bdat | Reset | Noop | Help | Vrfy | Quit
Event = Command | Text | Piece | End | Rejected | Signal
ANSWERED: Final = frozenset((Hello, Mail, Rcpt, Start, Piece, End, Reset, Noop, Help, Vrfy, Quit))
