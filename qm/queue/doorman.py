"""Who stands at the queue's door: takes connections, and gives each that has something to say to a worker.

A connection rests here while its client is silent, so that many kept connections cost few workers.  A user who is no
role of ours has a share of the connections and of the workers and no more, so that nobody on this machine can close the
door for the others.
"""

import errno
import mmap
import os
import signal
import socket
import struct
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.queue.policy import Rules
from qm.queue.session import NAME, Client, Session
from qm.queue.shop import Shop
from qm.unix import log
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire import door, queuecode
from qm.wire.record import number, pack, unpack

CONTROLS: Final = ("concurrencyqueue", "timeoutqueue")
GUESTS_MAX: Final = 512  # connections; a new one then takes the place of the one that has rested longest
SHARE: Final = 4  # a stranger has this part of the workers, and of the connections
KEEP_S: Final = 60.0  # a resting connection is kept this long
JOBS: Final = 500  # times that a worker takes a connection up
_RESTS: Final = b"r"  # a worker's report: the connection goes on, but not with me
RETRY_S: Final = 1.0  # after a fork or an accept that failed
_CREDENTIALS: Final = struct.Struct("@iII")  # struct ucred


class Guest:
    """A connection, and who is at its other end."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)
        self.resting_since_s = 0.0


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
        rests = Session(shop, channel, Client(uid, pid, timeout_s)).serve()
    finally:
        channel.detach()  # the spawner's library closes it
    if shop.stopping:
        os._exit(errors.OK)
    return _RESTS if rests else b""


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
    """Say why nothing will be taken, and close; what the client has sent is thrown away."""
    with channel:
        try:
            channel.shutdown(socket.SHUT_RD)  # or who sends as fast as we read would keep us here
            while channel.recv(1, socket.MSG_DONTWAIT):
                pass  # a close with datagrams unread would take our answer from the client
        except OSError:
            pass  # nothing more
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
        self._guests: Counter[int] = Counter()  # connections by uid
        self._resting: dict[Guest, None] = {}  # longest first
        self._waiting: deque[Guest] = deque()  # for a worker
        self._served: Counter[int] = Counter()  # connections by uid that have a worker
        self._crowd = Crowd()
        trade = Trade(NAME, b"takes messages in")
        self._pool: Pool[None] = Pool(
            loop, trade, lambda _: _enter(rules, self._crowd), self._limits(), on_exit=_say_how
        )
        self._open = self._paused = False
        self._watch()
        loop.after(KEEP_S / 2, self._part)

    def _limits(self) -> Limits:
        workers = max(1, self._controls.number("concurrencyqueue"))
        return Limits(workers=workers, per_key=workers, jobs_per_worker=JOBS)

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
        """Take connections while there is room for them."""
        wanted = not self._paused and (self._guests.total() < GUESTS_MAX or bool(self._resting))
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
        guest = Guest(channel)
        if guest.uid not in self._roles and self._guests[guest.uid] >= GUESTS_MAX // SHARE:
            _refuse(channel, queuecode.BUSY)
            return
        self._guests[guest.uid] += 1
        if self._guests.total() > GUESTS_MAX and self._resting:
            self._dismiss(next(iter(self._resting)))
        self._look(guest)
        self._place()

    def _rest(self, guest: Guest) -> None:
        guest.resting_since_s = self._loop.now_s()
        self._resting[guest] = None
        self._loop.watch(guest.channel.fileno(), lambda: self._stirs(guest))

    def _stirs(self, guest: Guest) -> None:
        """A resting client has said something, or has gone."""
        del self._resting[guest]
        self._loop.unwatch(guest.channel.fileno())
        self._look(guest)
        self._place()

    def _look(self, guest: Guest) -> None:
        """Let *guest* wait for a worker, rest, or go, by what there is to read."""
        try:
            said = guest.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._rest(guest)
        except ConnectionError:
            self._gone(guest)
        else:
            if said:
                self._waiting.append(guest)
            else:
                self._gone(guest)

    def _gone(self, guest: Guest) -> None:
        guest.channel.close()
        self._guests[guest.uid] -= 1
        if not self._guests[guest.uid]:
            del self._guests[guest.uid]

    @staticmethod
    def _dismiss(guest: Guest) -> None:
        """Refuse what *guest* says from now on; what it has said just before still counts, so it is not closed here."""
        guest.channel.shutdown(socket.SHUT_RD)

    def _part(self) -> None:
        """Dismiss those who have rested for KEEP_S."""
        before_s = self._loop.now_s() - KEEP_S
        for guest in self._resting:
            if guest.resting_since_s > before_s:
                break
            self._dismiss(guest)
        self._loop.after(KEEP_S / 2, self._part)

    def _share(self, uid: int) -> int:
        """How many workers *uid* may hold."""
        workers = self._pool.limits.workers
        return workers if uid in self._roles else max(1, workers // SHARE)

    def _place(self) -> None:
        """Give those who wait to workers, as far as there are any."""
        for guest in list(self._waiting):
            if self._paused or not self._pool.room(None):
                break
            if self._served[guest.uid] < self._share(guest.uid) and not self._give(guest):
                break
        self._crowd.set(bool(self._waiting) and not self._pool.room(None))
        self._watch()

    def _give(self, guest: Guest) -> bool:
        timeout_s = max(1, self._controls.number("timeoutqueue"))
        record = pack(*(b"%d" % value for value in (guest.uid, guest.pid, timeout_s)))
        try:
            self._pool.give(None, record, [guest.channel.fileno()], lambda report: self._ended(guest, report))
        except OSError as error:
            self._pause(f"cannot start a worker: {error.strerror}")
            return False
        self._served[guest.uid] += 1
        self._waiting.remove(guest)
        return True

    def _ended(self, guest: Guest, report: bytes | None) -> None:
        self._served[guest.uid] -= 1
        if not self._served[guest.uid]:
            del self._served[guest.uid]
        if report == _RESTS:
            self._look(guest)
        else:
            self._gone(guest)
        self._place()

    def close(self) -> None:
        """Serve nobody any more: the messages in hand are finished or thrown away, all others are sent away."""
        self._paused = True
        self._listener.shutdown(socket.SHUT_RD)  # who comes now is refused by the kernel; those before it are below
        while True:
            try:
                _refuse(self._listener.accept()[0], queuecode.UNREACHABLE)
            except OSError:
                break
        for guest in (*self._resting, *self._waiting):
            self._dismiss(guest)
            _refuse(guest.channel, queuecode.UNREACHABLE)
        self._resting.clear()
        self._waiting.clear()
        self._pool.close()
