"""queue: put one message into the queue, for any local program (qmail-queue).

Reads:   fd 0 (the message, to its end), then fd 1 (the envelope); without a service control/roles
Env:     QMHOME
Asks:    queue service; without one, the queue's owner and root write by themselves
As:      the caller
Exits:   0 queued; 11 address too long, 31 refused, 51..91 temporary (qmail.md section 5); nothing is printed
See:     qm-queue(8)
"""

import os
import signal
from collections.abc import Iterator
from typing import Final

from qm.errors import QmError
from qm.queue.protocol import EnvelopeReader
from qm.unix.program import Argv, Env, enter_home, program
from qm.unix.queueclient import QueueClient
from qm.wire import queuecode
from qm.wire.envelope import Envelope
from qm.wire.queuecode import Deferred, Refused, failure

DEATH_S: Final = 86400  # a writer gives up; below STALE_S of the sweep (qmail.md 4.6)
_READ_MAX: Final = 65536
_IGNORED: Final = ("SIGPIPE", "SIGVTALRM", "SIGPROF", "SIGQUIT", "SIGINT", "SIGHUP", "SIGXCPU", "SIGXFSZ")


def _timed_out(*_: object) -> None:
    raise failure(queuecode.TIMEOUT)


def _settle_signals() -> None:
    """Whatever the caller may have blocked or ignored."""
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _timed_out)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.alarm(DEATH_S)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_MAX)
    except OSError as error:
        raise failure(queuecode.READ, error.strerror) from error


def _check_descriptors() -> None:
    """A descriptor of ours must not come to be where the caller's should be."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError as error:
            raise failure(queuecode.READ, error.strerror) from error


def message() -> Iterator[bytes]:
    while chunk := _read(0):
        yield chunk


def envelope() -> Envelope:
    reader = EnvelopeReader()
    while chunk := _read(1):
        if reader.feed(chunk):
            return reader.envelope()
    raise failure(queuecode.READ)


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
    _settle_signals()
    try:
        enter_home(env)
    except QmError:
        return queuecode.HOME
    try:
        _check_descriptors()
        return _queue()
    except (Deferred, Refused) as error:
        return error.code
    except MemoryError:
        return queuecode.MEMORY
