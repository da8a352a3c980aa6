"""The next program of a command line: ours is called warm in this process, a stranger's is exec'd.

UCSPI says that a program like tcpserver runs the rest of its command line.  `prepare` does once what can be done once, and returns a
function that runs that rest for one connection; for a stranger's program that function does not return.
QMCOLD in the environment makes ours strangers too, so that tests can compare both ways.
"""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Final, NoReturn

from qm import errors
from qm.programs import PROGRAMS
from qm.unix import log
from qm.unix.program import Argv, Env

Runner = Callable[[Env], int]
Work = Callable[[bytes, Sequence[int]], bytes]

_BIN: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "bin")

# qmail.md 2.2: what may work later
TEMPORARY_ERRNO: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EINTR ENOMEM ETXTBSY EIO ETIMEDOUT EAGAIN EDEADLK EBUSY ENFILE EMFILE EFBIG ENOSPC ENETDOWN ENETUNREACH"
        " ENETRESET ECONNABORTED ECONNRESET ENOBUFS ETOOMANYREFS ECONNREFUSED EHOSTDOWN EHOSTUNREACH EUSERS EDQUOT"
        " ESTALE ENOLCK"
    ).split()
)


def ours(name: bytes) -> ModuleType | None:
    """The module of program *name* if it is one of ours: a bare name, or a path into our own bin/."""
    text = os.fsdecode(name)
    folder, base = os.path.split(text)
    if base not in PROGRAMS or (folder and os.path.realpath(folder) != os.path.realpath(_BIN)):
        return None
    return import_module(PROGRAMS[base])


def prepare(argv: Argv, env: Env) -> Runner:
    """What runs *argv* for one connection, given that connection's environment."""
    module = None if b"QMCOLD" in env else ours(argv[0])
    if module is None:
        return lambda conn_env: execute(argv, conn_env)
    if hasattr(module, "warm"):
        runner: Runner = module.warm(argv, env)
        return runner
    return lambda conn_env: int(module.main(argv, conn_env))


def is_warm(argv: Argv, env: Env) -> bool:
    """Whether one process may run *argv* for many connections, one after another."""
    module = None if b"QMCOLD" in env else ours(argv[0])
    return module is not None and hasattr(module, "warm")


def worker(name: bytes) -> Work:
    """The job function of one of our programs, for a spawner's warm workers."""
    module = ours(name)
    if module is None:
        raise ValueError("not one of our programs")
    work: Work = module.work
    return work


def execute(argv: Argv, env: Env) -> NoReturn:
    """Become *argv*, found in the environment's PATH (with our bin/ last); ends with 111 or 100 if that cannot be."""
    path = env.get(b"PATH", b"/usr/bin:/bin") + b":" + os.fsencode(_BIN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and children would inherit that
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(argv[0], list(argv), {**env, b"PATH": path})
    except OSError as error:
        log.fatal(os.path.basename(argv[0]), f"cannot run: {error.strerror}")
        os._exit(errors.TEMPORARY if error.errno in TEMPORARY_ERRNO else errors.PERMANENT)
