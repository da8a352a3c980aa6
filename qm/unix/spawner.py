"""Warm workers: the one process pattern of qm.

A spawner holds privileges or a listening socket and parses nothing hostile; its workers are forked from it warm (everything is
imported, the garbage collector frozen), become who they must be once, and do one job after another.

- A job is one record with its descriptors, and has a key; a worker serves jobs of one key only, so none ever changes its user.
- A worker is retired after *jobs_per_worker* jobs, when idle for *idle_s*, or to make room for another key.
- Only the spawner retires a worker, by closing its channel, so that no job is given to a worker that is just leaving.
- A worker that dies in a job, or ends it by an exception, makes that job None: whoever gave it reads a temporary failure.
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
from typing import Final, Generic, NamedTuple, TypeVar

from qm.unix import fds, program
from qm.unix.loop import Loop

K = TypeVar("K", bound=Hashable)

Work = Callable[[bytes, Sequence[int]], bytes]
Report = Callable[[bytes | None], None]

_OK: Final = b"+"
_CRASHED: Final = b"-"
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

    *enter* runs once in each fresh worker with its key: it drops privileges and returns the function that does jobs; that
    function gets a record and descriptors (closed for it afterwards) and returns the report.  *keep* are descriptors that workers need;
    everything else above 2 is closed in them.
    """

    def __init__(
        self,
        loop: Loop,
        name: bytes,
        enter: Callable[[K], Work],
        limits: Limits,
        *,
        keep: Callable[[], Iterable[int]] = tuple,
        on_exit: Callable[[int, int], None] | None = None,
    ) -> None:
        self._loop = loop
        self._name = name
        self._enter = enter
        self.limits = limits
        self._keep = keep
        self._on_exit = on_exit
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
        """Hand a job to a worker; *report* is called with its result, or None if the worker failed.  Gives the worker's pid.

        The descriptors stay open here; close them after the call.  Raises OSError if no worker can be forked.
        """
        idle = self._idle.get(key)
        worker = idle.pop() if idle else self._fork(key)
        worker.report = report
        worker.jobs += 1
        try:
            fds.send_record(worker.channel, record, descriptors)
        except BrokenPipeError:
            pass  # it has died while idle; its exit ends the job
        return worker.pid

    def _fork(self, key: K) -> _Worker[K]:
        if len(self._workers) >= self.limits.workers:
            self._retire(min((w[0] for w in self._idle.values() if w), key=lambda w: w.idle_since_s))
        ours, theirs = fds.pair()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            self._child(key, theirs)
        theirs.close()
        worker = _Worker(pid, key, ours)
        self._workers[pid] = worker
        self._per_key[key] += 1
        self._loop.watch(ours.fileno(), lambda: self._readable(worker))
        return worker

    def _child(self, key: K, channel: socket.socket) -> None:
        """Never returns."""
        code = 111
        try:
            self._loop.forget()
            for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            fds.close_from(3, {channel.fileno(), *self._keep()})
            serve(self._name, channel, self._enter(key))
            code = 0
        except BaseException as error:  # a forked child must never run on in its parent's frames
            program.unforeseen(self._name, error)
        finally:
            os._exit(code)

    def _readable(self, worker: _Worker[K]) -> None:
        try:
            record, descriptors = fds.recv_record(worker.channel)
        except (OSError, ValueError):
            record, descriptors = b"", []
        fds.close_all(descriptors)
        if record[:1] != _OK or worker.report is None:
            self._closed(worker)
            return
        report, worker.report = worker.report, None
        if worker.jobs >= self.limits.jobs_per_worker:
            self._retire(worker)
        else:
            worker.idle_since_s = time.monotonic()
            self._idle.setdefault(worker.key, []).append(worker)
        report(record[1:])

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
        self._per_key[worker.key] -= 1
        if not self._per_key[worker.key]:
            del self._per_key[worker.key]

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
        if worker is not None:
            self._gone(worker)
        if self._on_exit is not None:
            self._on_exit(pid, status)
        if worker is not None and worker.report is not None:
            worker.report(None)

    def retire_all_idle(self) -> None:
        for worker in [w for idle in self._idle.values() for w in idle]:
            self._retire(worker)

    def close(self) -> None:
        """Retire every worker and wait; those in a job get SIGTERM and, after STOP_S, SIGKILL, and their jobs are reported None."""
        self.retire_all_idle()
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_S
        while self._leaving or self._workers:
            self._reap()
            if time.monotonic() > deadline_s:
                for pid in [*self._leaving, *self._workers]:
                    os.kill(pid, signal.SIGKILL)
                deadline_s = float("inf")
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)


def serve(name: bytes, channel: socket.socket, work: Work) -> None:
    """A worker's life: one job after another until the spawner closes the channel.

    An exception from *work* is reported as a crash, and ends the worker: what it left behind is unknown.
    """
    while True:
        try:
            record, descriptors = fds.recv_record(channel)
        except ConnectionResetError:
            return
        if not record:
            return
        try:
            report = work(record, descriptors)
        except Exception as error:
            program.unforeseen(name, error)
            fds.send_record(channel, _CRASHED)
            return
        fds.close_all(descriptors)
        try:
            fds.send_record(channel, _OK + report)
        except BrokenPipeError:
            return  # the spawner has gone: nobody waits for us
