"""A message as the lines of a POP3 multi-line reply (RFC 1939 3): CRLF line ends, dots stuffed, a lone dot at the end.

Files have LF line ends; a CRLF in a file is one line end, any other CR is left alone.  A last line without its end gets
one, since the lone dot must stand on a line of its own.  All work is done on whole chunks: no loop over lines or bytes.
"""

from typing import Final

END: Final = b".\r\n"


class Multiline:
    """Feed a message in chunks; *lines* is how many lines of its body go out (TOP), -1 for all."""

    def __init__(self, lines: int = -1) -> None:
        self._held = b""  # a CR that may be half of a CRLF
        self._at_line_start = True
        self._lines = lines
        self._in_header = lines >= 0
        self.done = False  # no further chunk would be shown

    def feed(self, chunk: bytes) -> bytes:
        """What to send for the next chunk of the message."""
        data = self._held + chunk if self._held else chunk
        self._held = b""
        if data.endswith(b"\r"):
            self._held, data = b"\r", data[:-1]
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        return self._stuff(self._cut(data) if self._lines >= 0 else data)

    def end(self) -> bytes:
        """What to send after the last chunk."""
        rest = b"" if self.done else self._stuff(self._held)
        return rest + END if self._at_line_start else rest + b"\r\n" + END

    def _stuff(self, data: bytes) -> bytes:
        if not data:
            return b""
        stuffed = data.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        if self._at_line_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = data.endswith(b"\n")
        return stuffed

    def _cut(self, data: bytes) -> bytes:
        """What TOP shows of *data*, which has LF line ends."""
        if self.done:
            return b""
        header_end = 0
        if self._in_header:
            header_end = self._header_end(data)
            if header_end < 0:
                return data
            self._in_header = False
        body = data[header_end:]
        count = body.count(b"\n")
        if count < self._lines:
            self._lines -= count
            return data
        self.done = True
        rest = body.split(b"\n", self._lines)[-1]
        return data[: len(data) - len(rest)]

    def _header_end(self, data: bytes) -> int:
        """Where the empty line after the header ends in *data*; -1 if it is not there."""
        if self._at_line_start and data.startswith(b"\n"):
            return 1
        found = data.find(b"\n\n")
        return found if found < 0 else found + 2


class WireSize:
    """Count the octets of a message (RFC 1939 11): a line end is two, a stuffed dot and the end of the reply are none.

    As W= in a Maildir name, what completes a last line without its end is not counted.  Feed no empty chunk.
    """

    def __init__(self) -> None:
        self.total = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk) + chunk.count(b"\n") - chunk.count(b"\r\n")
        self.total -= self._after_cr and chunk.startswith(b"\n")
        self._after_cr = chunk.endswith(b"\r")
