"""What every program does before and after its own work: home directory, errors to exit codes.

Python would end with exit 1 on an uncaught exception, which parents in this field read as a permanent failure
(qmail.md section 28), so the unforeseen becomes 111 here, or what the program's own table says.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Final

from qm import errors
from qm.unix import log

Argv = Sequence[bytes]
Env = dict[bytes, bytes]
Main = Callable[[Argv, Env], int]

DEFAULT_HOME: Final = b"/var/qm"


class Usage(errors.Permanent):
    """The command line is wrong; *public* is the usage line."""


def home(env: Mapping[bytes, bytes]) -> bytes:
    """The directory that all our relative paths start from."""
    return env.get(b"QMHOME", DEFAULT_HOME)


def roles(env: Mapping[bytes, bytes]) -> str:
    """The file of roles, for who is not in the home."""
    return os.fsdecode(os.path.join(home(env), b"control/roles"))


def home_from_here(env: Mapping[bytes, bytes]) -> bytes:
    """The home, as seen from the current directory.

    From below it, as from a user's home, it is reached upwards: the user may be unable to search what is above it.
    """
    path = home(env).rstrip(b"/")
    here = os.getcwdb()
    if here == path:
        return b"."
    return b"/".join([b".."] * here[len(path) :].count(b"/")) if here.startswith(path + b"/") else path


def enter_home(env: Env) -> None:
    """chdir to the home; raises Temporary if that fails."""
    try:
        os.chdir(home_from_here(env))
    except OSError as error:
        raise errors.Temporary(
            "cannot enter the home directory", detail=f"{os.fsdecode(home(env))}: {error.strerror}"
        ) from error


def ready(env: Env, text: bytes = b"") -> None:
    """Tell whoever started us (QMREADY: a descriptor's number) that we serve; *text* is the port of who has one."""
    number = env.pop(b"QMREADY", b"")
    if number.isdigit():
        fd = int(number)
        try:
            os.write(fd, text + b"\n")
            os.close(fd)
        except OSError:
            pass  # nobody waits for it any more


def unforeseen(name: bytes, error: BaseException) -> None:
    """Log an exception that nobody foresaw, in one line that names where."""
    frames = []
    step = error.__traceback__  # by hand: the traceback module costs every program 3 ms
    while step is not None:
        code = step.tb_frame.f_code
        frames.append(f"{os.path.basename(code.co_filename)}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    where = " < ".join(reversed(frames[-6:]))
    log.alert(name, f"bug, please report: {type(error).__name__}: {error} at {where}")


def program(
    *, at_home: bool = True, temporary: int = errors.TEMPORARY, permanent: int = errors.PERMANENT
) -> Callable[[Main], Main]:
    """Decorate a program's main: enter the home unless *at_home* is False, turn failures into exit codes."""

    def decorate(main: Main) -> Main:
        @wraps(main)
        def run(argv: Argv, env: Env) -> int:
            name = os.path.basename(argv[0])
            try:
                if at_home:
                    enter_home(env)
                return main(argv, env)
            except errors.QmError as error:
                log.fatal(name, str(error))
                return temporary if isinstance(error, errors.Temporary) else permanent
            except KeyboardInterrupt:
                return temporary
            except Exception as error:  # the unforeseen is temporary
                unforeseen(name, error)
                return temporary

        return run

    return decorate
