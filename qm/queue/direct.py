"""qm-queue without the service: the queue's owner, or root who becomes it, writes by the same steps."""

import os
from collections.abc import Callable, Iterator

from qm.disk import queue
from qm.disk.accept import Draft, NotQueued, Store, accept
from qm.errors import QmError
from qm.queue import policy
from qm.unix import privs
from qm.wire import date, queuecode
from qm.wire.door import Begin
from qm.wire.envelope import Envelope
from qm.wire.queuecode import failure


def _become_owner() -> policy.Rules:
    """Be who the queue belongs to; raises Deferred if we may not."""
    try:
        status = os.stat(queue.QUEUE)
        alias, qmaild, qmails = (privs.role(name).uid for name in ("alias", "qmaild", "qmails"))
        if privs.is_root():
            privs.become(privs.role("qmailq"))
    except (OSError, QmError) as error:
        raise failure(queuecode.QUEUE, str(error)) from error
    if os.geteuid() != status.st_uid:
        raise failure(queuecode.UNREACHABLE)
    return policy.rules(status.st_uid, alias, qmaild, qmails)


def put(message: Iterator[bytes], envelope: Callable[[], Envelope]) -> None:
    """Queue one message; raises Deferred, Refused."""
    uid, pid = os.getuid(), os.getpid()
    rules = _become_owner()
    os.umask(queue.UMASK)

    def received(name: bytes, born_ns: int) -> bytes:
        return policy.received(rules, uid, Begin(), name, date.rfc5322(born_ns // 1_000_000_000))

    try:
        accept(Store(), Draft(received, message, envelope, uid, pid))
    except NotQueued as error:
        raise failure(error.code, error.detail) from error
