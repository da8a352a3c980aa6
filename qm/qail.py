"""qail, elq, pinq: bring the mail of the Maildir into the mbox, then read it with Mail, elm or pine.

Usage:   qail|elq|pinq [arg ...]
Env:     MAIL, MAILDIR, MAILTMP, as maildir2mbox
Asks:    maildir2mbox, then becomes the mail reader
As:      whose mail it is
Exits:   111 the mail could not be brought; else what the mail reader exits with
See:     qail(1), maildir2mbox(1), qmail.md section 18
"""

import os
from typing import Final

from qm.errors import OK
from qm.unix import chain
from qm.unix.program import Argv, Env, Usage, program

READERS: Final = {b"qail": b"Mail", b"elq": b"elm", b"pinq": b"pine"}


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    reader = READERS.get(os.path.basename(argv[0]))
    if reader is None:
        raise Usage("usage: qail|elq|pinq [arg ...]")
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)  # where the mail reader starts
    code = chain.prepare([b"maildir2mbox"], env)(env)
    os.fchdir(here)
    return code if code != OK else chain.prepare([reader, *argv[1:]], env)(env)
