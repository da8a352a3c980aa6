"""newmrh: compile control/morercpthosts to control/morercpthosts.cdb, where smtpd looks (qmail-newmrh).

Usage:   qm-newmrh
Reads:   control/morercpthosts
Writes:  control/morercpthosts.cdb; fd 2 (what is wrong)
As:      the owner of control/
Exits:   0 done; 100 usage; 111 trouble: the old cdb stays
See:     qm-newmrh(8), qmail.md section 19
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from qm.disk import cdb
from qm.errors import OK, Temporary
from qm.unix.program import Argv, Env, Usage, program

TEXT: Final = "control/morercpthosts"
SIZE_MAX: Final = 1024 * 1024 * 1024  # bytes of it; some 50 million domains


@contextmanager
def _alone() -> Iterator[None]:
    """While no other of us is at work.  The lock is the directory's: a file for it would look like a control file."""
    try:
        fd = os.open("control", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Temporary("cannot read the domains", detail=f"control: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Temporary("another qm-newmrh is at work; try again") from error
    finally:
        os.close(fd)


def _read() -> bytes:
    try:
        with open(TEXT, "rb") as file:
            text = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise Temporary("cannot read the domains", detail=f"{TEXT}: {error.strerror}") from error
    if len(text) > SIZE_MAX:
        raise Temporary("cannot read the domains", detail=f"{TEXT}: larger than {SIZE_MAX} bytes")
    return text


def domains(text: bytes) -> Iterator[bytes]:
    """The entries of *text*, as smtpd asks for them; raises Temporary for a line that is none."""
    for count, line in enumerate(text.split(b"\n"), 1):
        domain = line.strip(b" \t").lower()
        if not domain or domain.startswith(b"#"):
            continue
        if any(byte in domain for byte in b" \t\r\0"):
            raise Temporary("the domains are broken", detail=f"{TEXT}:{count}: blank, CR or NUL byte in a domain")
        yield domain


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-newmrh")
    with _alone():
        cdb.write(TEXT + ".cdb", ((domain, b"") for domain in domains(_read())))
    return OK
