"""forward: send the message on to other addresses; for a line of a .qmail file (forward).

Usage:   forward address ...
Reads:   fd 0 (the message, from where it is read)
Env:     NEWSENDER, DTLINE (qmail.md 13.5); QMTLS; QMHOME
Writes:  fd 2 (the new message's ID)
Asks:    queue
As:      the recipient
Exits:   0 queued; 100 usage, or the queue refuses; 111 not now
See:     forward(1), dot-qmail(5), qmail.md section 17
"""

from itertools import chain
from typing import Final

from qm.errors import OK
from qm.unix import dotqmailenv, log, postbox, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.envelope import Envelope, Recipient

_NAME: Final = b"forward"


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: forward address ...")
    sender, delivered_to = dotqmailenv.variable(env, b"NEWSENDER"), dotqmailenv.line(env, b"DTLINE")
    envelope = Envelope(sender, tuple(map(Recipient, argv[1:])))
    accepted = postbox.post(env, chain([delivered_to], standard.chunks()), envelope)
    log.info(_NAME, f"id {accepted.name.decode('ascii')}")
    return OK
