"""Warm workers: the one process pattern of qm.

A spawner holds privileges or a listening socket and parses nothing hostile; its workers are forked from it warm
(everything is imported, the garbage collector frozen), become who they must be once, and do one job after another.

- A job is one record with its descriptors, and has a key; a worker serves jobs of one key only, so none ever changes
  its user (but see *rekey*).
- A worker is retired after *jobs_per_worker* jobs, when idle for *idle_s*, or to make room for another key.
- Only the spawner retires a worker, by closing its channel, so that no job is given to a worker that is just leaving.
- A worker that dies in a job, or ends it by an exception, makes that job None: whoever gave it reads a temporary
  failure.
- A worker may become another program (exec closes its channel); its job ends, as None, when that program does.
- `room` is False at the limits; the caller then stops reading its own source (backpressure).
"""

import gc
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Generic, NamedTuple, TypeVar

from qm.unix import fds
from qm.unix.loop import Loop
from qm.unix.worker import SENT, live, result
from qm.unix.worker import Trade as Trade
from qm.unix.worker import Work as Work

K = TypeVar("K", bound=Hashable)

Report = Callable[[bytes | None], None]

STOP_S: Final = 5.0  # a worker that is told to stop and does not is killed after this


class Limits(NamedTuple):
    workers: int = 40
    per_key: int = 40
    jobs_per_worker: int = 100
    idle_s: float = 60.0


class _Worker(Generic[K]):
    __slots__ = ("pid", "key", "channel", "report", "jobs", "idle_since_s")

    def __init__(self, pid: int, key: K, channel: socket.socket) -> None:
        self.pid = pid
        self.key = key
        self.channel = channel
        self.report: Report | None = None  # of the job in hand
        self.jobs = 0
        self.idle_since_s = 0.0


class Pool(Generic[K]):
    """Workers of one kind.

    *enter* runs once in each fresh worker with its key: it drops privileges and returns the function that does jobs;
    that function gets a record and a list of descriptors, and returns the report.  What it leaves in the list is closed
    for it.  *keep* are descriptors that workers need; all others are closed in them, but 2; 0 and 1 are /dev/null.
    *rekey*: workers of all keys have the same rights, so at the limit one whose key it says so of serves another key
    instead of making room for a fresh one.
    """

    def __init__(
        self,
        loop: Loop,
        trade: Trade,
        enter: Callable[[K], Work],
        limits: Limits,
        *,
        keep: Callable[[], Iterable[int]] = tuple,
        on_exit: Callable[[int, int], None] | None = None,
        rekey: Callable[[K], bool] = lambda key: False,
    ) -> None:
        self._loop = loop
        self._trade = trade
        self._enter = enter
        self.limits = limits
        self._keep = keep
        self._on_exit = on_exit
        self._rekey = rekey
        self._workers: dict[int, _Worker[K]] = {}  # by pid
        self._idle: dict[K, list[_Worker[K]]] = {}  # most recently used last
        self._per_key: Counter[K] = Counter()
        self._leaving: set[int] = set()
        loop.on_signal(signal.SIGCHLD, self._reap)
        loop.after(limits.idle_s / 2, self._retire_idle)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def busy(self) -> int:
        """How many jobs are being done."""
        return len(self._workers) - sum(map(len, self._idle.values()))

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(self._workers)

    def room(self, key: K) -> bool:
        """Whether `give` would take a job of *key* now."""
        if self._idle.get(key):
            return True
        if self._per_key[key] >= self.limits.per_key:
            return False
        return len(self._workers) < self.limits.workers or any(self._idle.values())

    def give(self, key: K, record: bytes, descriptors: Sequence[int], report: Report) -> int:
        """Hand a job to a worker; *report* is called with its result, or None if it failed.  Gives the worker's pid.

        Only to be called when there is `room`.  The descriptors stay open here; close them after the call.  Raises
        OSError if no worker can be forked or the job cannot be sent; then nothing is reported.
        """
        worker = self._take_idle(key) or self._rekeyed(key) or self._fork(key)
        try:
            fds.send_record(worker.channel, record, descriptors)
        except ConnectionError:
            pass  # it has died while idle; its exit ends the job
        except OSError:
            self._retire(worker)
            raise
        worker.report = report
        worker.jobs += 1
        return worker.pid

    def _take_idle(self, key: K) -> _Worker[K] | None:
        idle = self._idle.get(key)
        if not idle:
            return None
        worker = idle.pop()
        if not idle:
            del self._idle[key]
        return worker

    def _longest_idle(self) -> _Worker[K]:
        return min((idle[0] for idle in self._idle.values()), key=lambda w: w.idle_since_s)

    def _rekeyed(self, key: K) -> _Worker[K] | None:
        """A worker that served another key until now, where that is allowed and no more may be forked."""
        if len(self._workers) < self.limits.workers or not self._rekey((worker := self._longest_idle()).key):
            return None
        self._not_idle(worker)
        self._uncount(worker.key)
        worker.key = key
        self._per_key[key] += 1
        return worker

    def _fork(self, key: K) -> _Worker[K]:
        if len(self._workers) >= self.limits.workers:
            self._retire(self._longest_idle())
        ours, theirs = fds.pair()
        ours.setblocking(False)
        gc.freeze()
        # a signal that comes before the child has left our handlers must wait: it would be ours, not the child's
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SENT)
        try:
            pid = os.fork()
            if pid == 0:
                live(self._loop, self._trade, theirs, lambda: self._enter(key), self._keep())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        worker = _Worker(pid, key, ours)
        self._workers[pid] = worker
        self._per_key[key] += 1
        self._loop.watch(ours.fileno(), lambda: self._readable(worker))
        return worker

    def _readable(self, worker: _Worker[K]) -> None:
        try:
            found = result(worker.channel)
        except BlockingIOError:
            return
        if found is None or worker.report is None:
            self._closed(worker)
            return
        report, worker.report = worker.report, None
        if worker.jobs >= self.limits.jobs_per_worker:
            self._retire(worker)
        else:
            worker.idle_since_s = time.monotonic()
            self._idle.setdefault(worker.key, []).append(worker)
        report(found)

    def _closed(self, worker: _Worker[K]) -> None:
        """Its channel has ended, or cannot be trusted: no more jobs; the one in hand ends when the process does."""
        self._loop.unwatch(worker.channel.fileno())
        worker.channel.close()
        self._not_idle(worker)

    def _not_idle(self, worker: _Worker[K]) -> None:
        idle = self._idle.get(worker.key)
        if idle and worker in idle:
            idle.remove(worker)
            if not idle:
                del self._idle[worker.key]

    def _gone(self, worker: _Worker[K]) -> None:
        """It is no longer one of ours to count."""
        self._not_idle(worker)
        if worker.channel.fileno() >= 0:
            self._closed(worker)
        del self._workers[worker.pid]
        self._uncount(worker.key)

    def _uncount(self, key: K) -> None:
        self._per_key[key] -= 1
        if not self._per_key[key]:
            del self._per_key[key]

    def _retire(self, worker: _Worker[K]) -> None:
        """Let *worker*, which has no job, go: it reads the end of its channel and leaves."""
        self._gone(worker)
        self._leaving.add(worker.pid)

    def _retire_idle(self) -> None:
        before_s = time.monotonic() - self.limits.idle_s
        for worker in [w for idle in self._idle.values() for w in idle if w.idle_since_s < before_s]:
            self._retire(worker)
        self._loop.after(self.limits.idle_s / 2, self._retire_idle)

    def _reap(self) -> None:
        for pid in [*self._leaving, *self._workers]:
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found:
                self._exited(pid, status)

    def _exited(self, pid: int, status: int) -> None:
        self._leaving.discard(pid)
        worker = self._workers.get(pid)
        found = None
        if worker is not None:
            if worker.report is not None and worker.channel.fileno() >= 0:
                with suppress(BlockingIOError):
                    found = result(worker.channel)  # it may have come just before the end
            self._gone(worker)
        if self._on_exit is not None:
            self._on_exit(pid, status)
        if worker is not None and worker.report is not None:
            worker.report(found)

    def retire_all(self) -> None:
        """Let every worker go: idle ones now, the others after the job in hand."""
        for worker in [w for idle in self._idle.values() for w in idle]:
            self._retire(worker)
        for worker in self._workers.values():
            worker.jobs = self.limits.jobs_per_worker

    def close(self) -> None:
        """Retire every worker and wait; those in a job get SIGTERM and, after STOP_S, SIGKILL: such jobs are None."""
        self.retire_all()
        for worker in self._workers.values():
            if worker.channel.fileno() >= 0:
                worker.channel.shutdown(socket.SHUT_WR)  # one that handles SIGTERM finds no job after the one in hand
        self._kill(self._workers, signal.SIGTERM)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            if not self._reap_all(STOP_S):
                self._kill([*self._leaving, *self._workers], signal.SIGKILL)
                self._reap_all(STOP_S)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _kill(self, pids: Iterable[int], signum: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, signum)
            except (PermissionError, ProcessLookupError):
                pass  # it has become a program that runs as somebody else, or has ended and is still to be counted

    def _reap_all(self, limit_s: float) -> bool:
        """Wait for the workers' ends, with SIGCHLD blocked; whether all have come."""
        deadline_s = time.monotonic() + limit_s
        self._reap()
        while self._leaving or self._workers:
            wait_s = deadline_s - time.monotonic()
            if wait_s <= 0:
                return False
            signal.sigtimedwait({signal.SIGCHLD}, wait_s)
            self._reap()
        return True
