"""Log lines: one place that formats them, on descriptor 2.

A line is ``program: text``; the logger puts the time before it.  Whatever a stranger sent goes through `clean` first, so that
no line holds a control byte or a terminal escape and no line can be forged.
"""

import os
import re
from typing import Final

LINE_MAX: Final = 4096  # bytes; at most PIPE_BUF, so that lines of several processes never mix
_DIRTY: Final = re.compile(rb"[^ -~]")


def clean(text: bytes) -> bytes:
    """*text* with every byte outside printable ASCII as ``?``."""
    return _DIRTY.sub(b"?", text)


def write(line: bytes, fd: int = 2) -> None:
    """Write one line, whole or cut at LINE_MAX; a log that cannot be written is not a reason to stop mail."""
    if len(line) >= LINE_MAX:
        line = line[: LINE_MAX - 4] + b"..."
    try:
        os.write(fd, line + b"\n")
    except OSError:
        pass  # nowhere left to say it


def _say(name: bytes, kind: bytes, text: str) -> None:
    write(name + b": " + kind + clean(text.encode("utf-8", "backslashreplace")))


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
