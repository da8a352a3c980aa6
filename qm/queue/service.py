"""queued: the queue's door for every process of this machine, queue/socket.

Reads:   control/{concurrencyqueue,limitheld,timeoutqueue,roles}, again at SIGHUP
Env:     QMHOME, QMREADY (a descriptor that gets a line when the door is open)
Writes:  queue/{tmp,new,held,lock,trigger,socket}, fd 2 (log)
As:      root until it is qmailq for good, or the owner of a private system
Exits:   0 after SIGTERM; 111 when the queue cannot be made, or another service has it
See:     qm-queued(8), docs/INTERNALS.md 1.3

This process accepts connections (doorman) and parses nothing; its workers do (session).
"""

import os
import signal
import socket
import time
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk import lock, queue
from qm.disk.control import Controls
from qm.queue import policy
from qm.queue.doorman import CONTROLS, Doorman
from qm.queue.session import NAME
from qm.unix import confine, log, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, program, ready

BACKLOG: Final = 128
SWEEP_S: Final = 3600.0


def _become_owner() -> policy.Rules:
    """Be the queue's owner from here on."""
    owner = privs.role("qmailq")
    alias, qmaild, qmails = (privs.role(name).uid for name in ("alias", "qmaild", "qmails"))
    privs.become(owner)
    confine.gain_nothing()
    os.umask(queue.UMASK)
    return policy.rules(owner.uid, alias, qmaild, qmails)


def _listen() -> socket.socket:
    """The door; whoever holds the lock may take an old one's place."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.path.lexists(queue.SOCKET):
            os.unlink(queue.SOCKET)
        listener.bind(queue.SOCKET)
        os.chmod(queue.SOCKET, 0o666)  # noqa: S103  any process of this machine may ask
        listener.listen(BACKLOG)
    except OSError as error:
        raise errors.Temporary("cannot open the queue's door", detail=f"{queue.SOCKET}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _sweep(loop: Loop) -> None:
    """Remove what writers have left behind; now and every SWEEP_S."""
    try:
        swept = queue.sweep(time.time())
    except OSError as error:
        log.alert(NAME, f"cannot sweep {queue.TMP}: {error.strerror}")
    else:
        if swept:
            log.info(NAME, f"swept {swept} old files from {queue.TMP}")
    loop.after(SWEEP_S, lambda: _sweep(loop))


@program()
def main(argv: Argv, env: Env) -> int:
    controls = Controls(CONTROLS)
    rules = _become_owner()
    queue.make()
    held = lock.take(queue.LOCK)
    listener = _listen()
    loop = Loop()
    _sweep(loop)
    doorman = Doorman(loop, listener, controls, rules)
    loop.on_signal(signal.SIGHUP, doorman.reload)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(signum, loop.stop)
    ready(env)
    loop.run()
    with suppress(FileNotFoundError):
        os.unlink(queue.SOCKET)  # who comes now must hear that nobody is here
    doorman.close()
    listener.close()
    os.close(held)
    return errors.OK
