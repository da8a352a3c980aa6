"""qstat: how many messages are in the queue (qmail-qstat).

Usage:   qm-qstat
Reads:   queue/{held,new,cur}
Env:     QMHOME
Writes:  fd 1
As:      root, the queue's group, or the owner of a private system
Exits:   0; 100 usage; 111 the queue cannot be read
See:     qm-qstat(8), qmail.md section 19
"""

import sys

from qm import errors
from qm.disk import queue, queueview
from qm.unix.program import Argv, Env, Usage, program


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-qstat")
    everything, fresh = len(queueview.all_ids()), len(queueview.ids(queue.NEW))
    # scripts of others look for these words
    sys.stdout.write(f"messages in queue: {everything}\nmessages in queue but not yet preprocessed: {fresh}\n")
    if count := len(queueview.held_ids()):
        sys.stdout.write(f"messages in queue but held: {count}\n")
    return errors.OK
