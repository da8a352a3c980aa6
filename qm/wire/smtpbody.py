"""Message text on disk to message text on the wire: the other direction of qm.wire.smtpdata.

Every line ends in CRLF: LF becomes that, a CR that stands alone too (qmail.md 14.5), and a CRLF that somebody queued
stays one.  So no bare CR or LF ever leaves, and the next host sees lines where we see them.  NUL and 8-bit bytes are
data like any other.
"""

from typing import Final

END: Final = b".\r\n"  # after the text of DATA


class BodyEncoder:
    """Encode one message piece by piece; *dots* for DATA (RFC 5321 4.5.2), not for BDAT (RFC 3030)."""

    __slots__ = ("_at_start", "_cr", "_dots")

    def __init__(self, *, dots: bool = True) -> None:
        self._dots = dots
        self._at_start = True  # of a line
        self._cr = False  # the last byte was a CR, which is already sent as a line end

    def feed(self, text: bytes) -> bytes:
        """The next piece of the message, of any length."""
        if self._cr and text.startswith(b"\n"):
            text = text[1:]
            self._cr = False
        if not text:
            return b""
        if b"\r" in text:
            self._cr = text.endswith(b"\r")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            self._cr = False
        if self._dots:
            if self._at_start and text.startswith(b"."):
                text = b"." + text
            if b"\n." in text:
                text = text.replace(b"\n.", b"\n..")
        self._at_start = text.endswith(b"\n")
        return text.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """What must follow the last piece: the line end that the message lacks, if it does."""
        return b"" if self._at_start else b"\r\n"
