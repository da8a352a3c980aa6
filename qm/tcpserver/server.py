"""The parent: accepts connections, counts them, and gives each to a worker.  It reads nothing from a peer.

At the limit it stops accepting, and connections wait in the kernel's backlog.
"""

import errno
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from qm import errors
from qm.tcpserver.options import ERRORS, VERBOSE, Options
from qm.unix import log
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire import ucspi
from qm.wire.record import Malformed, number

ACCEPT_MAX: Final = 16  # connections taken before anything else is looked at
PAUSE_S: Final = 1.0  # after an accept or a fork that failed for want of something
WARN_EVERY_S: Final = 60.0  # at most; a limit that is reached is reached often
DRAIN_S: Final = 10.0  # after SIGTERM, for connections to end by themselves; below the supervisor's KILL_S
JOBS: Final = 500  # connections of one worker; to replace one costs 3 ms
IDLE_S: Final = 60.0
# accept(2): the connection has failed before we took it; the next may be well
_ITS_OWN: Final = frozenset(
    (
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    )
)


class Caller(NamedTuple):
    """Who has connected, as the kernel tells."""

    record: bytes  # for the worker
    crowd: bytes  # whom -C counts together
    label: bytes  # for the log


Meet = Callable[[socket.socket, tuple[str, int]], Caller]  # a connection, and the address that came with it


class Server:
    """Connections of *listener*; *enter* makes a fresh worker ready, which serves many of them if it is *warm*."""

    def __init__(
        self,
        listener: socket.socket,
        options: Options,
        meet: Meet,
        enter: Callable[[None], Work],
        *,
        warm: bool,
        keep: tuple[int, ...] = (),
    ) -> None:
        self._listener = listener
        self._options = options
        self._meet = meet
        self._loop = Loop()
        limits = Limits(options.limit, options.limit, JOBS if warm else 1, IDLE_S)
        trade = Trade(options.name, b" ".join(options.program))
        self._pool: Pool[None] = Pool(self._loop, trade, enter, limits, keep=lambda: keep, on_exit=self._exited)
        self._status = 0  # of the worker that has exited last, as wait tells it
        self._by_crowd: Counter[bytes] = Counter()
        self._accepting = self._pausing = self._ending = False
        self._warned_s = -WARN_EVERY_S
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(signum, self._end)
        self._loop.on_signal(signal.SIGHUP, self._pool.retire_all)

    def run(self) -> None:
        """Serve until SIGTERM."""
        self._say(self._status_line(0))
        self._watch()
        self._loop.run()
        self._listener.close()
        self._pool.close()

    def _say(self, *lines: bytes) -> None:
        if self._options.verbosity >= VERBOSE:
            log.write_lines(lines)

    def _status_line(self, count: int) -> bytes:
        return ucspi.status_line(count, self._options.limit, self._options.name)

    def _warn(self, text: str) -> None:
        if self._options.verbosity >= ERRORS:
            log.warning(self._options.name, text)

    def _watch(self) -> None:
        """Wait for connections if we can take any."""
        wanted = self._pool.room(None) and not self._pausing and not self._ending
        if wanted and not self._accepting:
            self._loop.watch(self._listener.fileno(), self._accept)
        elif self._accepting and not wanted:
            self._loop.unwatch(self._listener.fileno())
            if not (self._pausing or self._ending):
                self._warn_of_limit()
        self._accepting = wanted

    def _warn_of_limit(self) -> None:
        now_s = self._loop.now_s()
        if now_s >= self._warned_s + WARN_EVERY_S:
            self._warned_s = now_s
            self._warn(f"all {self._options.limit} connections (-c) are in use; more wait until one ends")

    def _accept(self) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                channel, address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _ITS_OWN:
                    self._pause(f"cannot accept connections, trying again: {error.strerror}")
                break
            with channel:
                self._take(channel, self._meet(channel, address))
            if self._pausing or not self._pool.room(None):
                break
        self._watch()

    def _take(self, channel: socket.socket, caller: Caller) -> None:
        crowd, count = caller.crowd, self._by_crowd[caller.crowd]
        if 0 < self._options.limit_per_address <= count:
            self._say(b"%b: dropping connection from %b: it has %d" % (self._options.name, caller.label, count))
            return
        self._say(self._status_line(self._pool.busy + 1))
        try:
            pid = self._pool.give(
                None, caller.record, [channel.fileno()], lambda result: self._ended(pid, crowd, result)
            )
        except OSError as error:
            self._pause(f"dropping connection from {caller.label.decode()}: unable to fork: {error.strerror}")
            return
        self._by_crowd[crowd] += 1

    def _pause(self, text: str) -> None:
        """Too many processes or open files, or too little memory: let something end first."""
        self._warn(text)
        self._pausing = True
        self._loop.after(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pausing = False
        self._watch()

    def _exited(self, pid: int, status: int) -> None:
        self._status = status

    def _ended(self, pid: int, crowd: bytes, result: bytes | None) -> None:
        """A connection is over."""
        self._by_crowd[crowd] -= 1
        if not self._by_crowd[crowd]:
            del self._by_crowd[crowd]
        status = self._status if result is None else _status(result)
        if os.WIFSIGNALED(status):
            self._warn(f"process {pid} was ended by signal {os.WTERMSIG(status)}, with a connection")
        self._say(ucspi.end_line(pid, status, self._options.name), self._status_line(self._pool.busy))
        if self._ending and not self._pool.busy:
            self._loop.stop()
        self._watch()

    def _end(self) -> None:
        """Take no more, let what runs end by itself for a while; when told again, end at once."""
        if self._ending:
            self._loop.stop()
            return
        self._ending = True
        self._watch()
        self._listener.close()
        self._pool.retire_all()
        if self._pool.busy:
            self._loop.after(DRAIN_S, self._loop.stop)
        else:
            self._loop.stop()


def _status(result: bytes) -> int:
    """What wait would tell of a process that exits with the code *result*."""
    try:
        return number(result, 255) << 8
    except Malformed:
        return errors.TEMPORARY << 8
