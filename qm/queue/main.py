"""queue: put one message into the queue, for any local program (qmail-queue).

Reads:   fd 0 (the message, to its end), then fd 1 (the envelope); without a service control/roles
Env:     QMHOME
Asks:    queue service; without one, the queue's owner and root write by themselves
As:      the caller
Exits:   0 queued; 11 address too long, 31 refused, 51..91 temporary (qmail.md section 5); nothing is printed
See:     qm-queue(8)
"""

from qm.unix.program import Argv, Env, program
from qm.unix.queueclient import QueueClient
from qm.unix.queueinput import envelope, hand_over, message
from qm.wire import queuecode
from qm.wire.queuecode import Deferred


def _by_service() -> bool:
    """Give it to the service; False if there is none."""
    client = QueueClient()
    try:
        client.ensure()
    except Deferred:
        return False
    submission = client.begin()
    for chunk in message():
        submission.write(chunk)
    submission.commit(envelope())
    return True


def _queue() -> int:
    if not _by_service():
        from qm.queue import direct  # rare, and the usual way shall start fast

        direct.put(message(), envelope)
    return queuecode.QUEUED


@program(at_home=False, temporary=queuecode.BUG)
def main(argv: Argv, env: Env) -> int:
    return hand_over(env, _queue)
