"""Waiting for a program, a child with a process group of its own: in bounded time, with the beginning of its output.

It is done when its process is: what that leaves in the background may keep its output open, and holds up nothing.
"""

import os
import select
import signal
import time
from typing import Final

GRACE_S: Final = 10.0  # from SIGTERM to SIGKILL
_READ: Final = 65536  # bytes at a time, and all that a pipe holds
_POLL_S: Final = 3600.0  # at a time; poll(2) cannot take every number that a control file can have


class Output:
    """What comes out of a pipe, the first bytes of it kept; *fd* is set to be non-blocking."""

    def __init__(self, fd: int, most: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._most = most
        self.kept = b""

    def read(self) -> bool:
        """Take what is there, and throw away what is too much; False at the end."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return True
        self.kept += data[: self._most - len(self.kept)]
        return bool(data)


def wait(pid: int, output: Output, limit_s: float) -> int | None:
    """The exit code, negative for a signal; None, and its process group is killed, if it has not ended in *limit_s*."""
    pidfd = os.pidfd_open(pid)
    ended = False
    try:
        ended = _listen(pidfd, output, limit_s)
    finally:
        if not ended:
            _kill(pid, pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


def _listen(pidfd: int, output: Output, limit_s: float) -> bool:
    """Read until the program has ended; False if it has not after *limit_s*."""
    deadline_s = time.monotonic() + limit_s
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output.fd, select.POLLIN)
    while (rest_s := deadline_s - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(min(rest_s, _POLL_S) * 1000)]
        if output.fd in ready and not output.read():
            poll.unregister(output.fd)
        if pidfd in ready:
            output.read()  # what it wrote last
            return True
    return False


def _kill(pid: int, pidfd: int) -> None:
    """End the process group; raises OSError, and this process must then end, if that does not work."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    os.killpg(pid, signal.SIGTERM)
    poll.poll(GRACE_S * 1000)
    os.killpg(pid, signal.SIGKILL)  # also what has outlived the first of them
    if not poll.poll(GRACE_S * 1000):
        raise TimeoutError(f"process {pid} cannot be killed")
