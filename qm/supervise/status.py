"""run/status: which process is which service, for rc, and for a supervisor whose forerunner was killed.

A process is known by its pid and its start, in clock ticks after the boot that the first line names: so no stranger is
taken for it.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from select import POLLIN, poll
from typing import Final, NamedTuple

PATH: Final = "run/status"
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_BYTES_MAX: Final = 65536
_LEFTOVER_S: Final = 10.0  # what a killed supervisor has left may take this long to end


class Row(NamedTuple):
    name: str
    pid: int  # 0: down
    ticks: int  # its start, since the boot
    since_s: int  # its start or death, since 1970
    state: str  # up, starting, down
    text: str  # its port, if it has one


def start_ticks(pid: int) -> int:
    """When process *pid* started, in clock ticks since the boot (proc(5), field 22); 0: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _boot() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()


def write(rows: Iterable[Row]) -> None:
    """Raises OSError."""
    lines = ["\t".join(map(str, row)) for row in rows]
    with open(f"{PATH}.tmp", "w", encoding="latin-1") as file:
        file.write("\n".join([_boot(), *lines, ""]))
    os.rename(f"{PATH}.tmp", PATH)


def remove() -> None:
    """Nothing runs any more."""
    with suppress(FileNotFoundError):
        os.unlink(PATH)


def read() -> list[Row]:
    """The rows of this boot; none if there is no file, or not one of ours."""
    try:
        with open(PATH, encoding="latin-1") as file:
            boot, *lines = file.read(_BYTES_MAX).splitlines()
        fields = [line.split("\t") for line in lines]
        rows = [Row(n, int(pid), int(ticks), int(since), state, text) for n, pid, ticks, since, state, text in fields]
        return rows if boot == _boot() else []
    except (OSError, ValueError):
        return []


def end_leftovers() -> list[str]:
    """Stop the services of a supervisor that was killed, so that ours find their ports and locks free; their names."""
    names = []
    for row in read():
        try:
            pidfd = os.pidfd_open(row.pid) if row.pid else -1
        except OSError:
            continue
        if pidfd >= 0 and start_ticks(row.pid) == row.ticks and not _ended(pidfd, 0):
            names.append(row.name)
            _end_group(row.pid, pidfd)
        if pidfd >= 0:
            os.close(pidfd)
    return names


def _ended(pidfd: int, limit_s: float) -> bool:
    waiter = poll()
    waiter.register(pidfd, POLLIN)
    return bool(waiter.poll(limit_s * 1000))


def _end_group(pid: int, pidfd: int) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, signum)
        except ProcessLookupError:
            return
        if _ended(pidfd, _LEFTOVER_S):
            return
