"""Running a command of a .qmail file: ``/bin/sh -c COMMAND`` with a message on descriptor 0 (qmail.md 13.6).

The command is its user's own text, never mail data.  It gets a process group of its own and no signal setting of ours.
"""

import os
import signal
from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.unix import oversee

SHELL: Final = b"/bin/sh"
_IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python; a child would inherit that


class Ended(NamedTuple):
    code: int  # exit code; negative: the signal that killed it
    output: bytes  # the beginning of what it wrote to descriptors 1 and 2


def run(command: bytes, message: int, env: Mapping[bytes, bytes], *, limit_s: float, output_max: int) -> Ended:
    """Run *command* in the current directory with *message*, at its offset, as descriptor 0.

    Raises Temporary if it cannot be started or has not ended after *limit_s*; its process group is then killed.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        output = oversee.Output(reader, output_max)
        try:
            pid = _spawn(command, message, writer, env)
        finally:
            os.close(writer)
        code = oversee.wait(pid, output, limit_s)
        if code is None:
            raise Temporary(f"A program did not end in {limit_s:.0f} seconds.")
        return Ended(code, output.kept)
    finally:
        os.close(reader)


def _spawn(command: bytes, message: int, output: int, env: Mapping[bytes, bytes]) -> int:
    moves = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in ((message, 0), (output, 1), (output, 2))]
    argv = (SHELL, b"-c", command)
    try:
        return os.posix_spawn(SHELL, argv, env, file_actions=moves, setpgroup=0, setsigmask=(), setsigdef=_IGNORED)
    except OSError as error:
        raise Temporary("Unable to run a program.", detail=f"{error.strerror}") from error
