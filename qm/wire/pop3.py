"""POP3 server protocol, sans-IO: what both states share, and the TRANSACTION state (RFC 1939, 2449, 6856).

Bytes go in by `receive`, commands come out of `next_event`, replies are queued by the answer methods and leave by
`outgoing`.  What needs no mailbox (NOOP, CAPA, LANG, UTF8, bad commands) is answered here; every other command must be
answered before the next is asked for.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

LINE_MAX: Final = 512  # bytes of a command without its line end; RFC 2449 4 asks for 255 with it
SKIP_MAX: Final = 1 << 20  # bytes of a longer line that we throw away before we hang up
ERRORS_MAX: Final = 50  # commands that we do not understand, before we hang up

_CAPABILITIES: Final = (  # RFC 2449 6, RFC 3206 6, RFC 6856 2.1 and 3.1
    b"TOP",
    b"USER",
    b"UIDL",
    b"PIPELINING",
    b"RESP-CODES",
    b"AUTH-RESP-CODE",
    b"EXPIRE NEVER",
    b"UTF8",
    b"LANG",
)
IMPLEMENTATION: Final = b"IMPLEMENTATION qm"  # after login only: strangers need not know
_LANGUAGES: Final = (b"en English", b"i-default English")


class Signal(Enum):
    NEED_DATA = "nothing to do before more bytes are received"
    EOF = "the dialogue is over; send what is outgoing and close"


class Verb(Enum):
    STAT = b"STAT"
    LIST = b"LIST"
    UIDL = b"UIDL"
    RETR = b"RETR"
    TOP = b"TOP"
    DELE = b"DELE"
    RSET = b"RSET"
    LAST = b"LAST"
    QUIT = b"QUIT"


class Command(NamedTuple):
    """A well-formed command; *number* is any number from 0, *lines* is TOP's second argument, -1 for all."""

    verb: Verb
    number: int | None = None
    lines: int = -1


# verb: how many numbers it takes (RFC 1939 5 and 7; LAST is RFC 1460's)
_NUMBERS: Final[dict[bytes, tuple[Verb, int, int]]] = {
    b"STAT": (Verb.STAT, 0, 0),
    b"LIST": (Verb.LIST, 0, 1),
    b"UIDL": (Verb.UIDL, 0, 1),
    b"RETR": (Verb.RETR, 1, 1),
    b"TOP": (Verb.TOP, 2, 2),
    b"DELE": (Verb.DELE, 1, 1),
    b"RSET": (Verb.RSET, 0, 0),
    b"LAST": (Verb.LAST, 0, 0),
    b"QUIT": (Verb.QUIT, 0, 0),
}


class Dialogue:
    """Command lines in, replies out: what is the same before and after login."""

    capabilities: tuple[bytes, ...] = _CAPABILITIES
    line_max: int = LINE_MAX

    def __init__(self, greeting: bytes, errors_max: int = ERRORS_MAX) -> None:
        """*greeting* is the first reply's whole line without its end; b"" where there is none."""
        self._in = b""
        self._out = [greeting, b"\r\n"] if greeting else []
        self._errors_left = errors_max
        self._skipped = 0  # bytes of an over-long line that are gone already
        self._eof = False
        self._over = False

    def receive(self, data: bytes) -> None:
        """What the peer sent; b"" when it has closed."""
        self._in += data
        self._eof = self._eof or not data

    def outgoing(self) -> bytes:
        """The replies since the last call."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _put(self, status: bytes, text: bytes) -> None:
        self._out.append(b"%b %b\r\n" % (status, text) if text else status + b"\r\n")

    def _put_lines(self, text: bytes, lines: Iterable[bytes]) -> None:
        """A multi-line reply; no line may begin with a dot."""
        self._put(b"+OK", text)
        self._out.extend(line + b"\r\n" for line in lines)
        self._out.append(b".\r\n")

    def _refuse(self, text: bytes) -> None:
        """Answer a command that makes no sense; hang up after too many."""
        self._put(b"-ERR", text)
        self._errors_left -= 1
        if self._errors_left <= 0:
            self._put(b"-ERR", b"too many bad commands, goodbye")
            self._over = True

    def _next_line(self) -> bytes | Signal:
        """The next command line without its end; over-long ones are refused here."""
        while not self._over:
            end = self._in.find(b"\n")
            length = self._skipped + (len(self._in) if end < 0 else end)
            if length > SKIP_MAX:
                self._put(b"-ERR", b"line too long, goodbye")
                self._over = True
            elif end < 0:
                if length > self.line_max:
                    self._skipped, self._in = length, b""
                return Signal.EOF if self._eof else Signal.NEED_DATA
            else:
                line, self._in, self._skipped = self._in[:end], self._in[end + 1 :], 0
                if length <= self.line_max:
                    return line[:-1] if line.endswith(b"\r") else line
                self._too_long()
        return Signal.EOF

    def _too_long(self) -> None:
        self._refuse(b"line too long")

    def _common(self, verb: bytes, argument: bytes) -> None:
        """Answer what needs neither login nor mailbox, and what does not exist."""
        if verb == b"NOOP":
            self._put(b"+OK", b"")
        elif verb == b"CAPA":
            self._put_lines(b"capability list follows", self.capabilities)
        elif verb == b"UTF8":
            # RFC 6856 2.1.  Messages go out as they are in both modes, so there is nothing to switch.
            self._put(b"+OK", b"UTF-8 it is")
        elif verb == b"LANG":
            self._language(argument.strip(b" ").lower())
        else:
            self._refuse(b"unknown command")

    def _language(self, wanted: bytes) -> None:
        """RFC 6856 3.2; all our texts are English."""
        if not wanted:
            self._put_lines(b"language list follows", _LANGUAGES)
        elif wanted == b"i-default":
            self._put(b"+OK", b"i-default English it is")
        elif wanted in (b"*", b"en") or wanted.startswith(b"en-"):
            self._put(b"+OK", b"en English it is")
        else:
            self._put(b"-ERR", b"no such language here")


class Transaction(Dialogue):
    """The state after login."""

    capabilities = (*_CAPABILITIES, IMPLEMENTATION)

    def __init__(self, greeting: bytes) -> None:
        super().__init__(greeting)
        self._owed: Command | None = None

    @property
    def queued_bytes(self) -> int:
        """Roughly what `outgoing` would return, for a driver that bounds it."""
        return sum(map(len, self._out))

    def next_event(self) -> Command | Signal:
        """The next command for the mailbox; the one before must have been answered."""
        assert self._owed is None, "the last command was not answered"
        while True:
            line = self._next_line()
            if isinstance(line, Signal):
                return line
            command = self._parse(line)
            if command is not None:
                self._owed = command
                return command

    def _parse(self, line: bytes) -> Command | None:
        """*line* as a command for the mailbox; None if it has been answered already."""
        name, _, argument = line.partition(b" ")
        name = name.upper()
        shape = _NUMBERS.get(name)
        if shape is None:
            self._common(name, argument)
            return None
        verb, least, most = shape
        numbers = argument.split()
        if not least <= len(numbers) <= most:
            self._refuse(b"wrong number of arguments")
            return None
        if not all(map(bytes.isdigit, numbers)):
            self._refuse(b"that is not a number")
            return None
        return Command(verb, *map(int, numbers))

    def _answer(self) -> None:
        assert self._owed is not None, "there is nothing to answer"
        self._over = self._over or self._owed.verb is Verb.QUIT
        self._owed = None

    def ok(self, text: bytes = b"") -> None:
        self._answer()
        self._put(b"+OK", text)

    def error(self, text: bytes) -> None:
        """*text* may begin with a response code in brackets (RFC 2449 8)."""
        self._answer()
        self._put(b"-ERR", text)

    def lines(self, lines: Iterable[bytes], text: bytes = b"") -> None:
        """Answer with several lines, none of which begins with a dot."""
        self._answer()
        self._put_lines(text, lines)

    def send(self, piece: bytes) -> None:
        """A piece of a message after its `ok`, as qm.wire.multiline made it."""
        self._out.append(piece)
