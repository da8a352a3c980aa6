"""Netstrings, as QMTP and QMQP are made of them: ``LENGTH:BYTES,`` (qmail.md 16.7).

Pure: bytes come from a function.  Nothing longer than LENGTH_MAX is begun, and what is long is given in pieces.
"""

from collections.abc import Callable, Iterator
from typing import Final

from qm.wire.record import Malformed

LENGTH_MAX: Final = 200_000_000  # bytes of one netstring, as qmail
DIGITS_MAX: Final = 10  # with leading zeros, which qmail takes


def encode(text: bytes) -> bytes:
    return b"%d:%b," % (len(text), text)


class Netstrings:
    """What *read* gives, as netstrings; it gives b"" at the end, and raises what it likes."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self.taken = 0  # bytes, from the beginning

    def _more(self) -> bool:
        """Whether there is something in the buffer, or more has come."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._read(), 0
        return bool(self._buffer)

    def _byte(self) -> int:
        if not self._more():
            raise Malformed("the end in the middle of a netstring")
        self._at += 1
        self.taken += 1
        return self._buffer[self._at - 1]

    def over(self) -> bool:
        """Whether nothing more comes."""
        return not self._more()

    def length(self) -> int:
        """The length of the netstring that begins here; its bytes come next.  Raises Malformed."""
        value = 0
        for count in range(DIGITS_MAX + 1):
            byte = self._byte()
            if byte == 0x3A and count:
                return value
            if not 0x30 <= byte <= 0x39:
                break
            value = value * 10 + byte - 0x30
            if value > LENGTH_MAX:
                raise Malformed(f"a netstring of more than {LENGTH_MAX} bytes")
        raise Malformed("no length of a netstring")

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next *length* bytes; raises Malformed if they end before."""
        while length:
            if not self._more():
                raise Malformed("the end in the middle of a netstring")
            piece = self._buffer[self._at : self._at + length]
            self._at += len(piece)
            self.taken += len(piece)
            length -= len(piece)
            yield piece

    def end(self) -> None:
        """The comma; raises Malformed."""
        if self._byte() != 0x2C:
            raise Malformed("a netstring without its comma")

    def text(self, most: int) -> bytes | None:
        """A whole netstring; None, when its bytes have been thrown away, if there are more than *most*."""
        length = self.length()
        kept = b"".join(piece for piece in self.pieces(length) if length <= most)
        self.end()
        return kept if length <= most else None
