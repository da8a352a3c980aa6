"""The message of a delivery, read from its descriptor: in pieces, and never by the descriptor's own offset.

Several deliveries of one message may share an open file, and a retry in another session starts again at 0.
"""

import os
from collections.abc import Iterator
from typing import Final

from qm.errors import Temporary

PIECE: Final = 262144  # bytes; a message up to this goes out in one write
HEADER_MAX: Final = 262144  # bytes of a header that are searched for UTF-8; beyond, it is taken to have some


class Message:
    def __init__(self, fd: int) -> None:
        """Raises Temporary for a descriptor that cannot be read."""
        self._fd = fd
        try:
            self.size = os.fstat(fd).st_size
        except OSError as error:
            raise _unreadable(error.strerror) from error
        self.first = self._read(0)

    def _read(self, at: int) -> bytes:
        size = min(PIECE, self.size - at)
        try:
            piece = os.pread(self._fd, size, at)
        except OSError as error:
            raise _unreadable(error.strerror) from error
        if len(piece) < size:
            raise _unreadable("shorter than it was")
        return piece

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """The message from its beginning, in pieces of at most PIECE bytes, and whether each is the last.

        Raises Temporary; what was sent must then not be completed.
        """
        yield self.first, self.size <= PIECE
        for at in range(PIECE, self.size, PIECE):
            yield self._read(at), at + PIECE >= self.size

    def wire_size(self) -> int:
        """Bytes on the wire, with CRLF for LF and without dots (RFC 1870 3)."""
        return self.size + sum(piece.count(b"\n") for piece, _ in self.pieces())

    def has_utf8_header(self) -> bool:
        head = self.first[:HEADER_MAX]
        end = head.find(b"\n\n")
        return not head[: end if end >= 0 else None].isascii() or (end < 0 and self.size > HEADER_MAX)


def _unreadable(why: str | None) -> Temporary:
    return Temporary("Unable to read the message.", detail=why or "")
