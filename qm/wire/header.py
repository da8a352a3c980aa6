"""The header of a message that streams by: how many hops it has made (RFC 5321 6.3)."""

from typing import Final

# qmail.md 15.6: the first 8 or 9 bytes of a line count, in any case, colon or not
_FIELDS: Final = (b"\nreceived", b"\ndelivered")
_LONGEST: Final = max(map(len, _FIELDS))


class HopCounter:
    """Count the Received and Delivered-To fields of a header that comes in pieces, with LF line ends.

    Nothing is kept of it but the beginning of the line in hand.
    """

    __slots__ = ("_start", "count")

    def __init__(self) -> None:
        self.count = 0
        self._start: bytes | None = b"\n"  # of the line in hand, with the LF before it; None: the header is over

    def feed(self, piece: bytes) -> None:
        """Take the next *piece* of the message."""
        if self._start is None:
            return
        text = self._start + piece
        end = text.find(b"\n\n")
        if end >= 0:
            self._start = None
        else:
            end = text.rfind(b"\n")
            self._start = text[end : end + _LONGEST]
        header = text[:end].lower()
        for field in _FIELDS:
            self.count += header.count(field)
