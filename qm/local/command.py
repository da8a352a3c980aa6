"""Running a command of a .qmail file: ``/bin/sh -c COMMAND`` with a message on descriptor 0 (qmail.md 13.6).

The command is its user's own text, never mail data.  It gets a process group of its own and no signal setting of ours.
It is done when its process is: what that leaves in the background may keep its output open, and holds up nothing.
"""

import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.errors import Temporary

SHELL: Final = b"/bin/sh"
GRACE_S: Final = 10.0  # from SIGTERM to SIGKILL
_READ: Final = 65536  # bytes at a time, and all that a pipe holds
_POLL_S: Final = 3600.0  # at a time; poll(2) cannot take every number that a control file can have
_IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python; a child would inherit that


class Ended(NamedTuple):
    code: int  # exit code; negative: the signal that killed it
    output: bytes  # the beginning of what it wrote to descriptors 1 and 2


class _Output:
    """What comes out of a pipe, the first bytes of it kept."""

    def __init__(self, fd: int, most: int) -> None:
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


def run(command: bytes, message: int, env: Mapping[bytes, bytes], *, limit_s: float, output_max: int) -> Ended:
    """Run *command* in the current directory with *message*, at its offset, as descriptor 0.

    Raises Temporary if it cannot be started or has not ended after *limit_s*; its process group is then killed.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    output = _Output(reader, output_max)
    try:
        os.set_blocking(reader, False)
        try:
            pid = _spawn(command, message, writer, env)
        finally:
            os.close(writer)
        return Ended(_wait(pid, output, limit_s), output.kept)
    finally:
        os.close(reader)


def _spawn(command: bytes, message: int, output: int, env: Mapping[bytes, bytes]) -> int:
    moves = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in ((message, 0), (output, 1), (output, 2))]
    argv = (SHELL, b"-c", command)
    try:
        return os.posix_spawn(SHELL, argv, env, file_actions=moves, setpgroup=0, setsigmask=(), setsigdef=_IGNORED)
    except OSError as error:
        raise Temporary("Unable to run a program.", detail=f"{error.strerror}") from error


def _wait(pid: int, output: _Output, limit_s: float) -> int:
    pidfd = os.pidfd_open(pid)
    ended = False
    try:
        ended = _listen(pidfd, output, limit_s)
    finally:
        if not ended:
            _kill(pid, pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
    if not ended:
        raise Temporary(f"A program did not end in {limit_s:.0f} seconds.")
    return os.waitstatus_to_exitcode(status)


def _listen(pidfd: int, output: _Output, limit_s: float) -> bool:
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
