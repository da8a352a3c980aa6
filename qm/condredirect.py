"""condredirect: send the message to another address if a program says so; for a line of a .qmail file (condredirect).

Usage:   condredirect address program [arg ...]
Reads:   fd 0 (the message, seekable)
Env:     SENDER, DTLINE (qmail.md 13.5); QMTLS; QMHOME
Asks:    the program, which exits 0 for yes; queue
As:      the recipient
Exits:   0 no: go on with the next line; 99 yes, and queued: no further line; 100 usage, or the queue refuses; 111 not
         now
See:     condredirect(1), dot-qmail(5), qmail.md section 17
"""

import os
from itertools import chain
from typing import Final

from qm.errors import OK, TEMPORARY, Temporary
from qm.unix import child, dotqmailenv, postbox, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.envelope import Envelope, Recipient

STOP: Final = 99


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 3:
        raise Usage("usage: condredirect address program [arg ...]")
    sender, delivered_to = dotqmailenv.variable(env, b"SENDER"), dotqmailenv.line(env, b"DTLINE")
    code = child.run(argv[2:], env)
    if code != OK:
        return TEMPORARY if code == TEMPORARY else OK
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError as error:
        raise Temporary("unable to read the message again", detail=str(error.strerror)) from error
    envelope = Envelope(sender, (Recipient(argv[1]),))
    postbox.post(env, chain([delivered_to], standard.chunks()), envelope)
    return STOP
