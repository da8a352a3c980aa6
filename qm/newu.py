"""newu: compile users/assign to users/cdb, which says who gets the mail of a local part (qmail-newu).

Usage:   qm-newu
Reads:   users/assign
Writes:  users/cdb, fd 2 (what is wrong, with file and line)
As:      the owner of users/
Exits:   0 done; 100 usage; 111 trouble or a bad line: the old users/cdb stays
See:     qm-newu(8), qmail.md 12.2, 12.3
"""

from typing import Final

from qm import errors
from qm.disk import cdb, lock
from qm.errors import Temporary
from qm.unix import log
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.assign import BadLine, compile_lines

NAME: Final = b"qm-newu"
TEXT: Final = "users/assign"
SIZE_MAX: Final = 256 * 1024 * 1024  # bytes of users/assign; some million users


def _read() -> bytes:
    try:
        with open(TEXT, "rb") as file:
            text = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise Temporary("cannot read the users", detail=f"{TEXT}: {error.strerror}") from error
    if len(text) > SIZE_MAX:
        raise Temporary("cannot read the users", detail=f"{TEXT}: larger than {SIZE_MAX} bytes")
    return text


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-newu")
    with lock.held("users/lock"):
        try:
            compiled = compile_lines(_read())
        except BadLine as error:
            raise Temporary("the users are broken", detail=f"{TEXT}:{error}") from error
        for warning in compiled.warnings:
            log.warning(NAME, f"{TEXT}:{warning}")
        cdb.write("users/cdb", compiled.entries)
    return errors.OK
