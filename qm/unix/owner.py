"""Who runs this home: one supervisor, found by the lock that it holds and not by a number in a file.

The kernel tells the pid of a record lock's holder (fcntl(2), F_GETLK), and the lock ends with the process, so that a
stale pid file never makes us signal a stranger.  The file's text is for humans.
"""

import fcntl
import os
import signal
import struct
from select import POLLIN, poll
from typing import Final

from qm.errors import Temporary

_FLOCK: Final = "hhqqi"  # struct flock: type, whence, start, length, pid


def _lock() -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def take(path: str) -> int:
    """Be the one that holds *path*, until this process ends; gives the descriptor, which must stay open.

    Raises Temporary if another has it.  Forked children do not hold it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLK, _lock())
    except OSError as error:
        os.close(fd)
        raise Temporary("already running", detail=f"{path}: {error.strerror}") from error
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def _holder(path: str) -> int:
    """The pid that holds *path*, or 0."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, _lock()))
    finally:
        os.close(fd)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


class Owner:
    """A running holder of the lock; what it names stays this process and no other, whatever happens to its pid."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    def signal(self, signum: int) -> None:
        """Raises PermissionError, ProcessLookupError."""
        signal.pidfd_send_signal(self._pidfd, signum)

    def wait(self, limit_s: float) -> bool:
        """Whether it has ended within *limit_s*."""
        waiter = poll()
        waiter.register(self._pidfd, POLLIN)
        return bool(waiter.poll(limit_s * 1000))


def find(path: str) -> Owner | None:
    """Who holds *path*, or None."""
    while pid := _holder(path):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue  # it has just ended
        if _holder(path) == pid:
            return Owner(pid, pidfd)
        os.close(pidfd)
    return None
