"""Log lines: one place that formats them, on descriptor 2.

A line is ``program: text``; the logger puts the time before it.  Whatever a stranger sent goes through `clean`
first, so that no line holds a control byte or a terminal escape and no line can be forged.
"""

import os
import re
from collections.abc import Sequence
from typing import Final

LINE_MAX: Final = 4096  # bytes; at most PIPE_BUF, so that lines of several processes never mix
JOURNAL_MAX: Final = 100  # lines that wait for something to be settled
_DIRTY: Final = re.compile(rb"[^ -~]")
_WORD: Final = bytes(ord("_") if byte == 32 else byte if 32 < byte < 127 else ord("?") for byte in range(256))


def clean(text: bytes) -> bytes:
    """*text* with every byte outside printable ASCII as ``?``."""
    return _DIRTY.sub(b"?", text)


def word(text: bytes) -> bytes:
    """*text* as the value of ``key=value``: as `clean`, with ``_`` for each blank."""
    return text.translate(_WORD)


def write(line: bytes, fd: int = 2) -> None:
    """Write one line, whole or cut at LINE_MAX; a log that cannot be written is not a reason to stop mail."""
    if len(line) >= LINE_MAX:
        line = line[: LINE_MAX - 4] + b"..."
    try:
        os.write(fd, line + b"\n")
    except OSError:
        pass  # nowhere left to say it


def write_lines(lines: Sequence[bytes], fd: int = 2) -> None:
    """Write many lines with few system calls; each stays whole, or is cut at LINE_MAX."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) + 1 > LINE_MAX:
            write(b"\n".join(batch), fd)
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        write(b"\n".join(batch), fd)


def _say(name: bytes, kind: bytes, text: str) -> None:
    write(clean(name + b": " + kind + text.encode("utf-8", "backslashreplace")))


def info(name: bytes, text: str) -> None:
    _say(name, b"", text)


def warning(name: bytes, text: str) -> None:
    """Something is not as it should be, and we go on."""
    _say(name, b"warning: ", text)


def alert(name: bytes, text: str) -> None:
    """Somebody must look at this."""
    _say(name, b"alert: ", text)


def fatal(name: bytes, text: str) -> None:
    """Why the program stops."""
    _say(name, b"fatal: ", text)


class Journal:
    """What a session has to say, ``name: PID event key=value ...`` a line; collected, so that it costs few writes."""

    def __init__(self, name: bytes) -> None:
        self._prefix = b"%b: %d " % (name, os.getpid())
        self._lines: list[bytes] = []
        self.due = False  # something is settled that whoever watches the log should see before the next wait

    def note(self, line: bytes, *values: bytes) -> None:
        """Add ``event key=value ...``; *line* has a %b for each of the *values*, which may be a stranger's."""
        self._lines.append(self._prefix + line % tuple(map(word, values)))
        if len(self._lines) >= JOURNAL_MAX:
            self.due = True

    def write(self) -> None:
        write_lines(self._lines)
        self._lines.clear()
        self.due = False
