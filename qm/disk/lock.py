"""One at a time: a lock on a file of its own, gone with the process that holds it."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

from qm.errors import Temporary

WAIT_S: Final = 30.0  # `held` gives up after this; who holds it needs well under a second


_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def _open(path: str) -> int:
    try:
        try:
            fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, _FLAGS)
        if os.geteuid() == 0:  # the owner of a private system must be able to take it after us
            owner = os.stat(os.path.dirname(path) or ".")
            os.fchown(fd, owner.st_uid, owner.st_gid)  # only what we have made: another file may be a link to anything
    except OSError as error:
        raise Temporary("cannot take a lock", detail=f"{path}: {error.strerror}") from error
    return fd


def take(path: str) -> int:
    """Take the lock *path* until this process ends; gives its descriptor, which must stay open.

    Raises Temporary if another process has it.  A forked child that keeps the descriptor keeps the lock.
    """
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Temporary("already running", detail=f"{path}: {error.strerror}") from error
    return fd


@contextmanager
def held(path: str) -> Iterator[None]:
    """Hold the lock *path*; waits WAIT_S for it, then raises Temporary.  For the main thread: it uses SIGALRM."""
    fd = _open(path)
    try:
        _wait(fd, path)
        yield
    finally:
        os.close(fd)


def _wait(fd: int, path: str) -> None:
    def ring(signum: int, frame: FrameType | None) -> NoReturn:
        raise Temporary("cannot take a lock", detail=f"{path}: another process has held it for {WAIT_S:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
