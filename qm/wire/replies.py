"""What an SMTP server answers, read by a client: bytes in, replies out (RFC 5321 4.2).

The server is a stranger: whatever it sends gives a Reply or BadReply, in linear time and bounded memory.  A reply ends
with a line whose fourth byte is not ``-``.  Lines end in LF, with or without CR.  Within a reply of several lines, a
line without a code counts as text.
"""

import re
from typing import Final, NamedTuple

KEEP_MAX: Final = 5000  # bytes of a reply that are kept; qmail.md 14.4
LINE_MAX: Final = 128 << 10  # bytes of a line without an end; RFC 5321 4.5.3.1.5 has 512
REPLY_MAX: Final = 1 << 20  # bytes of a reply
DIAGNOSTIC_MAX: Final = 1000  # bytes of one_line

_STATUS: Final = re.compile(rb"[245]\d\d[ -]([245]\.\d{1,3}\.\d{1,3})(?![.\d])")  # RFC 2034 4
_PRINTABLE: Final = bytes([c if 32 <= c < 127 or c == 10 else 63 for c in range(256)])  # everything else is ?
_TABLE: Final = _PRINTABLE[:9] + b" " + _PRINTABLE[10:]  # but a tab is a blank


class BadReply(Exception):
    """The server does not speak SMTP; the text says in which way."""


class Reply(NamedTuple):
    code: int  # 200 to 599
    raw: bytes  # as it came, its first KEEP_MAX bytes

    @property
    def ok(self) -> bool:
        return self.code < 300

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def status(self) -> bytes:
        """The enhanced code (RFC 3463) if there is one of the reply's own class, else ``5.0.0`` or the like."""
        match = _STATUS.match(self.raw)
        if match and match[1][0] == self.raw[0]:
            return match[1]
        return b"%d.0.0" % (self.code // 100)

    def text(self) -> bytes:
        """Printable ASCII for logs and bounces: no CR, ``?`` for what is not printable, each line ended by LF."""
        text = self.raw.translate(_TABLE, b"\r")
        return text if text.endswith(b"\n") else text + b"\n"

    def one_line(self) -> bytes:
        """The code, and the text of all lines on one (RFC 3464 2.3.6)."""
        texts = [line[4:] if line[:3].isdigit() else line for line in self.text().splitlines()]
        return (b"%d " % self.code + b" ".join(texts))[:DIAGNOSTIC_MAX]


class Replies:
    """A server's bytes as a run of replies."""

    __slots__ = ("_buffer", "_bytes", "_first", "_kept", "_line_at", "_scanned")

    def __init__(self) -> None:
        self._buffer = b""
        self._line_at = 0  # where the line in hand begins
        self._scanned = 0  # no LF before this
        self._first = b""  # code of the reply in hand, if it has a first line
        self._kept = b""  # lines of it that have left the buffer
        self._bytes = 0  # how many those were

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def waiting(self) -> bool:
        """Whether bytes have come that `next` has not given away."""
        return bool(self._buffer or self._bytes)

    def next(self) -> Reply | None:
        """The next whole reply, or None; raises BadReply, and the session must then be given up."""
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._scanned)) >= 0:
            line_at, self._line_at, self._scanned = self._line_at, end + 1, end + 1
            if buffer[line_at + 3 : line_at + 4] == b"-":
                if not self._first:
                    self._first = _code(buffer[line_at : line_at + 3])
            elif not self._first or buffer[line_at : line_at + 3].isdigit():
                return self._whole(_code(buffer[line_at : line_at + 3]), end + 1)
        self._scanned = len(buffer)
        self._put_away()
        return None

    def _put_away(self) -> None:
        """Keep of the lines that are over only what is of use."""
        size = self._line_at
        if size:
            if len(self._kept) < KEEP_MAX:
                self._kept += self._buffer[: min(size, KEEP_MAX - len(self._kept))]
            self._bytes += size
            self._buffer = self._buffer[size:]
            self._scanned -= size
            self._line_at = 0
        if self._bytes > REPLY_MAX or len(self._buffer) > LINE_MAX:
            raise BadReply("its reply has no end")

    def _whole(self, code: bytes, size: int) -> Reply:
        raw = self._kept + self._buffer[: min(size, KEEP_MAX)] if self._kept else self._buffer[: min(size, KEEP_MAX)]
        first = self._first or code
        self._buffer = self._buffer[size:]
        self._line_at = self._scanned = self._bytes = 0
        self._first = self._kept = b""
        if first[0] != code[0]:
            raise BadReply("its reply contradicts itself")
        return Reply(int(code), raw[:KEEP_MAX])


def _code(digits: bytes) -> bytes:
    """*digits* if they are a code of RFC 5321 4.2.1; raises BadReply."""
    if not (len(digits) == 3 and digits.isdigit() and b"2" <= digits[:1] <= b"5"):
        raise BadReply("its reply has no code")
    return digits
