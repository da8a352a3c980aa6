"""The lines of a log directory, in either format.  Only files of the directory are opened, and no links."""

import os
from collections.abc import Iterator

from qm.disk.regular import open_regular
from qm.wire.logline import Entry, read

Line = tuple[int, Entry]  # when, in ns since 1970


def _files(folder: str, since_ns: int) -> Iterator[str]:
    """The log's files, the oldest first, without those that ended before."""
    for name in sorted(name for name in os.listdir(folder) if name.startswith("@")):
        ended = read(name.partition(".")[0].encode("ascii", "replace") + b" ")
        if ended is None or ended[0] >= since_ns:
            yield name
    yield "current"


def lines(folder: str, since_ns: int) -> Iterator[Line]:
    """Everything in the log since then; raises OSError if the directory cannot be read."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in _files(folder, since_ns):
            try:
                file = open_regular(name, dir_fd=fd)
            except FileNotFoundError:
                continue  # the oldest has gone, or current is being put away
            with open(file, "rb") as text:
                for raw in text:
                    line = read(raw)
                    if line is not None and line[0] >= since_ns:
                        yield line
    finally:
        os.close(fd)
