"""How much is going on, for rc status: connections at a port, messages in the queue, the days that certificates have.

Nobody is held up for it.
"""

import os
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from qm.disk import certfiles

ESTABLISHED: Final = "01"  # proc(5), /proc/net/tcp
COUNT_MAX: Final = 1_000_000  # files of a directory that are counted
FOLDERS: Final = {"new": "queue/new", "under way or waiting": "queue/cur", "held": "queue/held", "bad": "queue/bad"}
IMPORT: Final = "queue/import"  # empty but while an import works, or when it was interrupted
SOON_DAYS: Final = 14  # what renews itself has done so long before
_NUMBER: Final = re.compile(rb"\d{1,9}")


def connections(port: int) -> int:
    """How many connections that have been accepted there are at *port* of this machine."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                next(file, "")
                rows = (line.split() for line in file)
                count += sum(1 for row in rows if _is_served(row, port))
        except OSError:
            pass  # this machine has no such protocol
    return count


def _is_served(row: Sequence[str], port: int) -> bool:
    """A row of the table: local address, state, and inode 0 while it waits to be accepted."""
    return len(row) > 9 and row[3] == ESTABLISHED and row[9] != "0" and int(row[1].rpartition(":")[2], 16) == port


def limit(argv: Sequence[bytes]) -> int:
    """The -c of tcpserver or ipcserver, which is 40 by default; 0 for other programs."""
    if not argv or os.path.basename(argv[0]) not in (b"tcpserver", b"ipcserver"):
        return 0
    for word, following in zip(argv[1:], [*argv[2:], b""], strict=True):
        if word == b"-c" and _NUMBER.fullmatch(following):
            return int(following)
        if word.startswith(b"-c") and _NUMBER.fullmatch(word[2:]):
            return int(word[2:])
    return 40


def queue() -> str:
    """How many messages are where; empty where that is not for us to see."""
    try:
        # a queue service of before has made no held/
        counts = {n: _count(folder) for n, folder in FOLDERS.items() if n != "held" or os.path.lexists(folder)}
        left = _count(IMPORT) if os.path.lexists(IMPORT) else 0
    except OSError:
        return ""
    if left:
        counts["taken by an import that has not ended"] = left
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _count(folder: str) -> int:
    with os.scandir(folder) as entries:
        return sum(1 for _ in islice(entries, COUNT_MAX))


def certificates(host: str, now: datetime) -> list[str]:
    """When the certificate of *host* ends, and which others end soon."""
    lines = []
    for path, until in certfiles.ends():
        name = certfiles.name_of(path, host)
        if until is None:
            lines.append(f"warning: {path} has no certificate")
            continue
        days = (until - now).days
        if until < now:
            lines.append(f"warning: the certificate of {name} has EXPIRED, {until:%Y-%m-%d %H:%M} UTC ({path})")
        elif days < SOON_DAYS:
            lines.append(f"warning: the certificate of {name} ends in {days} days ({path})")
        elif path == certfiles.DEFAULT:
            lines.append(f"the certificate of {name} ends in {days} days")
    return lines
