"""The next program of a command line: ours is called warm in this process, a stranger's is exec'd.

UCSPI says that a program like tcpserver runs the rest of its command line.  `prepare` does once what can be done
once, and returns a function that runs that rest for one connection; for a stranger's program that function does not
return. QMCOLD in the environment makes ours strangers too, so that tests can compare both ways.
"""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NoReturn

from qm import errors
from qm.errors import TEMPORARY_ERRNO
from qm.programs import PROGRAMS
from qm.unix import log
from qm.unix.program import Argv, Env

Runner = Callable[[Env], int]
Work = Callable[[bytes, Sequence[int]], bytes]

BIN: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "bin")


def is_ours(name: bytes) -> bool:
    """Whether *name* is one of our programs: a bare name, or a path into our own bin/."""
    folder, base = os.path.split(os.fsdecode(name))
    return base in PROGRAMS and (not folder or os.path.realpath(folder) == os.path.realpath(BIN))


def ours(name: bytes) -> ModuleType | None:
    """The module of program *name*, if it is one of ours."""
    return import_module(PROGRAMS[os.path.basename(os.fsdecode(name))]) if is_ours(name) else None


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


def entrance(name: bytes) -> Callable[[], Callable[[Any], Work]]:
    """For workers whose key matters to the program: the function that makes ready for them, once in the spawner.

    What it gives is called in each fresh worker with the worker's key, and gives that worker's job function.
    """
    module = ours(name)
    if module is None:
        raise ValueError("not one of our programs")
    found: Callable[[], Callable[[Any], Work]] = module.entrance
    return found


def search_path(env: Env) -> bytes:
    """PATH with our bin/ at the end, so that a stranger's program finds ours too."""
    path = env.get(b"PATH", b"/usr/bin:/bin")
    ours_too = os.fsencode(BIN)
    return path if ours_too in path.split(b":") else path + b":" + ours_too


def execute(argv: Argv, env: Env) -> NoReturn:
    """Become *argv*, found by `search_path`; ends with 111 or 100 if that cannot be."""
    import signal  # who starts others has it already; sendmail shall start fast without

    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; children would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(argv[0], list(argv), {**env, b"PATH": search_path(env)})
    except OSError as error:
        log.fatal(os.path.basename(argv[0]), f"cannot run: {error.strerror}")
        os._exit(errors.TEMPORARY if error.errno in TEMPORARY_ERRNO else errors.PERMANENT)
