"""Who stands at the queue's door: takes connections, and gives each to a worker as soon as there is one.

Connections that find no worker wait here, and workers then leave their idle clients.  A user who is no role of ours has
a share of the workers and no more, so that nobody on this machine can close the door for the others.
"""

import errno
import mmap
import os
import signal
import socket
import struct
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from qm import errors
from qm.disk.control import Controls
from qm.queue.policy import Rules
from qm.queue.session import NAME, Client, Session
from qm.queue.shop import Shop
from qm.unix import log
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Work
from qm.wire import door, queuecode
from qm.wire.record import number, pack, unpack

CONTROLS: Final = ("concurrencyqueue", "timeoutqueue")
WAITING_MAX: Final = 256  # connections without a worker; beyond, the kernel's backlog fills
SHARE: Final = 4  # a stranger has this part of the workers, and of the places to wait
RETRY_S: Final = 1.0  # after a fork or an accept that failed
_CREDENTIALS: Final = struct.Struct("@iII")  # struct ucred


class Waiting(NamedTuple):
    channel: socket.socket
    uid: int
    pid: int


class Crowd:
    """One byte that the service writes and its workers read: whether connections wait for a worker."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self, crowded: bool) -> None:
        self._byte[0] = crowded

    def __call__(self) -> bool:
        return bool(self._byte[0])


def _work(shop: Shop, record: bytes, descriptors: Sequence[int]) -> bytes:
    uid, pid, timeout_s = (number(field, 1 << 32) for field in unpack(record, 3))
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptors[0])
    try:
        Session(shop, channel, Client(uid, pid, timeout_s)).serve()
    finally:
        channel.detach()  # the spawner's library closes it
    if shop.stopping:
        os._exit(errors.OK)
    return b""


def _enter(rules: Rules, crowd: Crowd) -> Work:
    """In a fresh worker."""
    shop = Shop(rules, crowd)
    shop.listen()
    return lambda record, descriptors: _work(shop, record, descriptors)


def _say_how(pid: int, status: int) -> None:
    """A worker has ended: well, or its client now reads a temporary failure."""
    if status not in (errors.OK, signal.SIGTERM):
        log.alert(NAME, f"worker {pid} ended with {os.waitstatus_to_exitcode(status)}")


def _refuse(channel: socket.socket, code: int) -> None:
    """Say why nothing will be taken, and close; what the client has sent was not read."""
    with channel:
        try:
            channel.send(door.answer(door.failed(code)), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            pass  # gone already


class Doorman:
    """Connections, workers, and whose turn it is."""

    def __init__(self, loop: Loop, listener: socket.socket, controls: Controls, rules: Rules) -> None:
        self._loop = loop
        self._listener = listener
        self._controls = controls
        self._roles = rules.tracing | rules.naming
        self._waiting: deque[Waiting] = deque()
        self._served: Counter[int] = Counter()  # connections by uid that have a worker
        self._crowd = Crowd()
        self._pool: Pool[None] = Pool(
            loop, NAME, lambda _: _enter(rules, self._crowd), self._limits(), on_exit=_say_how
        )
        self._open = self._paused = False
        self._watch()

    def _limits(self) -> Limits:
        workers = max(1, self._controls.number("concurrencyqueue"))
        return Limits(workers=workers, per_key=workers)

    def reload(self) -> None:
        if self._controls.refresh(lambda text: log.alert(NAME, text)):
            self._pool.limits = self._limits()
            self._place()

    def _pause(self, text: str) -> None:
        """Too many processes or open files: what there is must end first."""
        log.alert(NAME, text)
        self._paused = True
        self._watch()
        self._loop.after(RETRY_S, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._place()

    def _watch(self) -> None:
        """Take connections while there is room for them to wait."""
        wanted = len(self._waiting) < WAITING_MAX and not self._paused
        if wanted and not self._open:
            self._loop.watch(self._listener.fileno(), self._accept)
        elif self._open and not wanted:
            self._loop.unwatch(self._listener.fileno())
        self._open = wanted

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                self._pause(f"cannot accept: {error.strerror}")
            return
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in self._roles and sum(w.uid == uid for w in self._waiting) >= WAITING_MAX // SHARE:
            _refuse(channel, queuecode.BUSY)
            return
        self._waiting.append(Waiting(channel, uid, pid))
        self._place()

    def _share(self, uid: int) -> int:
        """How many workers *uid* may hold."""
        workers = self._pool.limits.workers
        return workers if uid in self._roles else max(1, workers // SHARE)

    def _place(self) -> None:
        """Give those who wait to workers, as far as there are any."""
        for waiting in list(self._waiting):
            if self._paused or not self._pool.room(None):
                break
            if self._served[waiting.uid] < self._share(waiting.uid) and not self._give(waiting):
                break
        self._crowd.set(bool(self._waiting) and not self._pool.room(None))
        self._watch()

    def _give(self, waiting: Waiting) -> bool:
        timeout_s = max(1, self._controls.number("timeoutqueue"))
        record = pack(*(b"%d" % value for value in (waiting.uid, waiting.pid, timeout_s)))
        try:
            self._pool.give(None, record, [waiting.channel.fileno()], lambda report: self._ended(waiting.uid))
        except OSError as error:
            self._pause(f"cannot start a worker: {error.strerror}")
            return False
        self._served[waiting.uid] += 1
        self._waiting.remove(waiting)
        waiting.channel.close()
        return True

    def _ended(self, uid: int) -> None:
        self._served[uid] -= 1
        if not self._served[uid]:
            del self._served[uid]
        self._place()

    def close(self) -> None:
        """Serve nobody any more: the messages in hand are finished or thrown away, who waits is sent away."""
        self._paused = True
        while True:
            try:
                _refuse(self._listener.accept()[0], queuecode.UNREACHABLE)
            except OSError:
                break
        while self._waiting:
            _refuse(self._waiting.popleft().channel, queuecode.UNREACHABLE)
        self._pool.close()
