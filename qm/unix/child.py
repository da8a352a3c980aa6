"""A program that we run and wait for, with our descriptors and its own message (qmail.md 16.3, section 17).

Ours are called in the child, a stranger's is exec'd; what cannot be exec'd counts as exit 111 or 100 of it.  How long
it may take is for whoever runs us to say.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final, NoReturn

from qm import errors
from qm.errors import Temporary
from qm.unix import chain
from qm.unix.program import Argv, Env, unforeseen

_GONE: Final = (errno.EPIPE, errno.ECONNRESET)


def run(argv: Argv, env: Env) -> int:
    """Its exit code; raises Temporary if it was killed, or there is no process for it."""
    return _wait(_fork(argv, env, 0))


def feed(argv: Argv, env: Env, message: Iterable[bytes]) -> int:
    """As `run`, with *message*, which comes in pieces, on its descriptor 0; it need not read all of it."""
    _check_stdin()
    reader, writer = os.pipe()  # not inherited by what is exec'd
    try:
        pid = _fork(argv, env, reader, writer)
    finally:
        os.close(reader)
    try:
        _pour(message, writer)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # or it would take what it has got for the whole message
        os.waitpid(pid, 0)
        raise
    os.close(writer)
    return _wait(pid)


def _check_stdin() -> None:
    """A pipe of ours must not come to be where the caller's message should be."""
    try:
        os.fstat(0)
    except OSError as error:
        raise Temporary("unable to read the message", detail=f"descriptor 0: {error.strerror}") from error


def _pour(message: Iterable[bytes], fd: int) -> None:
    try:
        for piece in message:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
    except OSError as error:
        if error.errno not in _GONE:  # else it has read what it wants
            raise


def _fork(argv: Argv, env: Env, stdin: int, *unwanted: int) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever runs us may ignore what we wait for
    sys.stdout.flush()
    try:
        pid = os.fork()
    except OSError as error:
        raise Temporary("unable to start a program", detail=str(error.strerror)) from error
    if pid == 0:
        _become(argv, env, stdin, unwanted)
    return pid


def _become(argv: Argv, env: Env, stdin: int, unwanted: Iterable[int]) -> NoReturn:
    code = errors.TEMPORARY
    try:
        for fd in unwanted:
            os.close(fd)
        if stdin:
            os.dup2(stdin, 0)
            os.close(stdin)
        code = chain.prepare(argv, env)(env)
        sys.stdout.flush()
    except Exception as error:
        unforeseen(os.path.basename(argv[0]), error)
    finally:
        os._exit(code)


def _wait(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise Temporary(f"a program was killed by signal {-code}")
    return code
