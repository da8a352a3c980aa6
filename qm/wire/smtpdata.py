"""Message text on the wire to message text on disk: CRLF becomes LF, and only CRLF is a line end.

A bare LF or CR is refused, whatever stands beside it: were it passed on, the next host might see an end of data where
we saw none, and execute what a stranger wrote into a message (SMTP smuggling; RFC 5321 2.3.8, 4.1.1.4).  NUL is data
like any byte.

Both decoders work on whole pieces, and keep at most four bytes from one to the next.  They have the same two methods::

    feed(wire) -> (text, rest)  the text, and what follows the end on the wire; None before the end has come
    over                        whether that end is the message's
"""

from typing import Final


class BareLineEnd(Exception):
    """A CR or LF that stands alone; nothing of the message may be used."""


_END: Final = b"\r\n.\r\n"


def _held(wire: bytes) -> int:
    """How many bytes at the end of *wire* may be the beginning of the end of data."""
    for length in (4, 3, 2, 1):
        if wire.endswith(_END[:length]):
            return length
    return 0


def _lines(wire: bytes) -> bytes:
    """*wire* with LF for CRLF; raises BareLineEnd."""
    text = wire.replace(b"\r\n", b"\n")
    if text.count(b"\n") != len(wire) - len(text) or b"\r" in text:
        raise BareLineEnd
    return text


class DotDecoder:
    """The text after DATA (RFC 5321 4.5.2)."""

    __slots__ = ("_first", "_tail")

    over: Final = True

    def __init__(self) -> None:
        self._tail = b"\r\n"  # of the DATA command: a dot at once after it ends an empty message
        self._first = True

    def feed(self, wire: bytes) -> tuple[bytes, bytes | None]:
        """Decode the next piece; raises BareLineEnd."""
        wire = self._tail + wire
        rest: bytes | None = None
        end = wire.find(_END)
        if end >= 0:
            text, rest = _lines(wire[: end + 2]), wire[end + 5 :]
        else:
            end = len(wire) - _held(wire)
            text, self._tail = _lines(wire[:end]), wire[end:]
        if b"\n." in text:
            text = text.replace(b"\n.", b"\n")
        if self._first and text:
            self._first = False
            text = text[1:]  # the line end of the DATA command
        return text, rest


class ChunkDecoder:
    """The octets of the BDAT commands of one message (RFC 3030 2).

    A message that does not end in a line end is given one: everything behind us deals in lines.
    """

    __slots__ = ("_octets", "_tail", "_whole_lines", "over")

    def __init__(self) -> None:
        self._octets = 0  # of the chunk in hand, still to come
        self._tail = b""  # a CR whose LF may be in the next piece, or in the next chunk
        self._whole_lines = True
        self.over = False

    def expect(self, octets: int, last: bool) -> None:
        """A chunk follows."""
        self._octets = octets
        self.over = last

    def feed(self, wire: bytes) -> tuple[bytes, bytes | None]:
        """Decode the next piece; raises BareLineEnd."""
        chunk = self._tail + wire[: self._octets]
        rest = wire[self._octets :] if len(wire) >= self._octets else None
        self._octets -= min(len(wire), self._octets)
        self._tail = b""
        if chunk.endswith(b"\r") and not (self.over and rest is not None):
            chunk, self._tail = chunk[:-1], b"\r"
        text = _lines(chunk)
        if text:
            self._whole_lines = text.endswith(b"\n")
        if self.over and rest is not None and not self._whole_lines:
            text += b"\n"
        return text, rest
