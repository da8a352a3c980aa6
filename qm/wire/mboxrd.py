"""mboxrd quoting: no line of a message in an mbox looks like the From_ line before the next one (qmail.md 13.7)."""

from typing import Final

_FROM: Final = b"From "


class Quoter:
    """Puts > before the lines of a message that match ``>*From ``; takes pieces cut anywhere."""

    def __init__(self) -> None:
        self._marks_only = True  # the line so far is nothing but >
        self._held = b""  # at the end of a piece: what may become a From_
        self._ended = True  # the last line has its LF

    def feed(self, piece: bytes) -> bytes:
        data = self._held + piece
        held = next((n for n in range(len(_FROM) - 1, 0, -1) if data.endswith(_FROM[:n])), 0)
        data, self._held = data[: len(data) - held], data[len(data) - held :]
        quoted = self._quote(data)
        line = data.rfind(b"\n") + 1
        self._marks_only = (self._marks_only or line > 0) and data.count(b">", line) == len(data) - line
        if data or held:
            self._ended = not held and data.endswith(b"\n")
        return quoted

    def _quote(self, data: bytes) -> bytes:
        parts = []
        done = after = 0  # done: copied so far; after: end of the last From_
        while (at := data.find(_FROM, after)) >= 0:
            if self._begins_line(data, after, at):
                parts += [data[done:at], b">"]
                done = at
            after = at + len(_FROM)
        return b"".join((*parts, data[done:])) if parts else data

    def _begins_line(self, data: bytes, after: int, at: int) -> bool:
        """Whether only > stands between the line's begin and *at*; *after* is the end of the last From_ before it."""
        line = data.rfind(b"\n", after, at) + 1
        if not line and (after or not self._marks_only):
            return False
        return data.count(b">", line, at) == at - line

    def end(self) -> bytes:
        """What remains, and the LF that the last line may lack."""
        return self._held + (b"" if self._ended else b"\n")
