"""The header of a message: where it ends, and what its fields are (RFC 5322 2.2, qmail.md 16.1).

Fields are kept as they came.  What ends the header is an empty line, the end of the message, or a line that is neither
a field nor the continuation of one: that is the body's first line then.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

HEADER_MAX: Final = 8 * 1024 * 1024  # bytes; 100,000 recipients of 80 bytes

_ENDS: Final = re.compile(rb"[\r\n\0]")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")  # blanks before the colon as in RFC 822


class HeaderTooLong(ValueError):
    """A header of more bytes than are read."""


class Field(NamedTuple):
    name: bytes  # in lower case
    text: bytes  # all of it, with the line end

    @property
    def body(self) -> bytes:
        """What follows the colon."""
        return self.text.partition(b":")[2]


def field(text: bytes) -> Field | None:
    """The field that *text* is, or None."""
    match = _FIELD.match(text)
    return Field(match[1].lower(), text) if match else None


def waives_tls(fields: Iterable[Field]) -> bool:
    """Whether the one field TLS-Required says No (RFC 8689 3)."""
    said = [field.body.strip().lower() for field in fields if field.name == b"tls-required"]
    return said == [b"no"]


def one_line(value: bytes, instead: bytes = b" ") -> bytes:
    """*value* with *instead* for each CR, LF and NUL, so that in a header it is no more than it says."""
    return _ENDS.sub(instead, value)


class HeaderReader:
    """Bytes of a message in, LF as line end, until `feed` says that the header is over.

    Then *fields* are its fields, and *body* is what has been read of what follows: beginning with an empty line, which
    is put in where the message has none, or nothing at all.
    """

    def __init__(self, most: int = HEADER_MAX) -> None:
        """*most* bytes are read of a header."""
        self.fields: list[Field] = []
        self.body = b""
        self._most = most
        self.over = False
        self._pieces: list[bytes] = []  # a line that has not ended
        self._lines: list[bytes] = []  # of the field in hand
        self._size = 0
        self._first = True

    def feed(self, chunk: bytes) -> bool:
        """Whether the header is over; raises HeaderTooLong."""
        self._size += len(chunk)
        if b"\n" not in chunk:
            self._pieces.append(chunk)
        else:
            self._read(b"".join([*self._pieces, chunk]))
        if self._size > self._most and not self.over:
            raise HeaderTooLong
        return self.over

    def end(self) -> None:
        """There is no more; a last line without LF gets one."""
        rest = b"".join(self._pieces)
        if rest and not self.over:
            self._read(rest + b"\n")
        if not self.over:
            self._over(b"")

    def _read(self, text: bytes) -> None:
        """Whole lines, and the beginning of one more."""
        start = 0
        while (end := text.find(b"\n", start) + 1) and not self.over:
            self._line(text, start, end)
            start = end
        self._pieces = [] if self.over else [text[start:]]

    def _line(self, text: bytes, start: int, end: int) -> None:
        line = text[start:end]
        if self._lines and line[0] in b" \t":
            self._lines.append(line)
            return
        if line == b"\n":
            self._over(text[start:])
        elif _FIELD.match(line):
            self._finish()
            self._lines = [line]
        elif self._first and line.startswith(b"From "):  # of an mbox
            self._lines = [b"MBOX-Line: " + line]
        else:
            self._over(b"\n" + text[start:])
        self._first = False

    def _finish(self) -> None:
        """The field in hand is complete."""
        known = field(b"".join(self._lines))
        if known:
            self.fields.append(known)
        self._lines = []

    def _over(self, body: bytes) -> None:
        self._finish()
        self.body = body
        self.over = True


def fields(message: Iterable[bytes]) -> list[Field]:
    """The header of a *message* that comes in pieces; of a header that is too long, nothing."""
    reader = HeaderReader()
    try:
        for piece in message:
            if reader.feed(piece):
                break
        reader.end()
    except HeaderTooLong:
        return []
    return reader.fields


class LineEnds:
    """Pieces of a message, with CR LF made LF if its first line ends so, as Postfix's sendmail does.

    A CR of its own is kept, and so is everything where the first line ends with LF.
    """

    def __init__(self) -> None:
        self._crlf: bool | None = None  # None: not known yet
        self._before = b""  # what ended the last piece: a CR, or nothing

    def feed(self, piece: bytes) -> bytes:
        text = self._before + piece
        self._before = b""
        if text.endswith(b"\r"):
            text, self._before = text[:-1], b"\r"
        if self._crlf is None and (end := text.find(b"\n")) >= 0:
            self._crlf = text[max(0, end - 1) : end] == b"\r"
        if self._crlf:
            text = text.replace(b"\r\n", b"\n")
        return text

    def end(self) -> bytes:
        return self._before


def lines_ended(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """*pieces* with their line ends made LF (see LineEnds), and with a LF at the end of the last line."""
    ends, last = LineEnds(), b"\n"
    for piece in pieces:
        text = ends.feed(piece)
        if text:
            last = text[-1:]
            yield text
    rest = ends.end()
    if rest or last != b"\n":
        yield rest + b"\n"
