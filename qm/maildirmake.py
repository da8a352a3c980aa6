"""maildirmake: make a Maildir.

Reads:   nothing
Env:     nothing
Writes:  the directory that argv[1] names, with tmp, new and cur in it, mode 0700; fd 2 (log)
Asks:    nobody
As:      whoever calls it
Exits:   0 made; 100 usage; 111 it exists already, or the system refuses: nothing is left then
See:     maildirmake(1), qm.disk.maildir
"""

import os

from qm.disk import maildir
from qm.errors import OK, Temporary
from qm.unix.program import Argv, Env, Usage, program


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2 or not argv[1]:
        raise Usage("usage: maildirmake name")
    try:
        maildir.make(argv[1])
    except OSError as error:
        raise Temporary(f"cannot make {os.fsdecode(argv[1])}", detail=f"{error.strerror}") from error
    return OK
