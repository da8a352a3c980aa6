"""The limited SMTP that the listed get: bytes in, replies out (qmail.md 21.5)."""

from typing import Final

LINE_MAX: Final = 1000  # bytes of a command that are looked at, and kept; RFC 5321 4.5.3.1.4 asks for 512
_GREETING: Final = b"220 rblsmtpd.local\r\n"
_GOODBYE: Final = b"221 rblsmtpd.local\r\n"
_FINE: Final = b"250 rblsmtpd.local\r\n"
_ACCEPTED: Final = frozenset((b"helo", b"ehlo", b"mail", b"rset", b"noop"))


class Refuser:
    """Says *message* to everything that would be mail; what it says is in `outgoing`."""

    def __init__(self, message: bytes) -> None:
        self._message = message + b"\r\n"
        self._line = b""
        self._replies = [_GREETING]
        self.done = False

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        said = b"".join(self._replies)
        self._replies.clear()
        return said

    def receive(self, data: bytes) -> None:
        """Hear *data*; after QUIT nothing is heard any more."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self.done:
                return
            self._hear(self._line + line)
            self._line = b""
        self._line = (self._line + rest)[:LINE_MAX]

    def _hear(self, line: bytes) -> None:
        verb = line[:LINE_MAX].removesuffix(b"\r").partition(b" ")[0].lower()
        if verb == b"quit":
            self._replies.append(_GOODBYE)
            self.done = True
        else:
            self._replies.append(_FINE if verb in _ACCEPTED else self._message)
