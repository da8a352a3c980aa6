"""When a message is tried again, and whose turn it is (qmail.md 7.6; docs/INTERNALS.md 2.1).

Pure: whoever calls passes the time in.  Deliveries are given out fairly: messages take turns, so that one with
10,000 recipients holds up nobody; a destination has its own limit, which grows with success and shrinks with
failure, as Postfix's queue manager does.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from itertools import islice
from math import isqrt
from typing import Final, Generic, TypeVar

LOCAL_SKIP: Final = 10  # qmail.md 7.6: the k-th try is (k * skip)^2 s after birth
REMOTE_SKIP: Final = 20
FIRST_WINDOW: Final = 5.0  # deliveries at once to a destination that we know nothing of
DEAD_S: Final = 300.0  # a destination that failed as a whole is left alone for so long
PROVEN_MAX: Final = 4096  # destinations that have served us and are remembered while nobody uses them
KEPT_FREE: Final = 4  # one part in so many of the deliveries is for destinations that have served us

M = TypeVar("M")


def next_try_s(born_s: int, started_s: int, skip: int) -> int:
    """When a message whose try began at *started_s* is due again: quadratic in its age."""
    return born_s + (isqrt(max(0, started_s - born_s)) + skip) ** 2


class Destination(Generic[M]):
    """What is known of one destination: who takes a remote domain's mail, or everything local.

    *window* is how many deliveries at once it may have; one whole window of failures in a row makes it dead for DEAD_S,
    or the first, if it could not be connected to and has never served us.
    """

    __slots__ = ("name", "window", "most", "busy", "proven", "failures", "dead_until_s", "queued", "waiting")

    def __init__(self, name: Hashable, window: float, most: float) -> None:
        self.name = name
        self.window = window
        self.most = most
        self.busy = 0
        self.proven = False  # it has served us, and not died since
        self.queued = 0  # recipients that wait, in all works
        self.failures = 0.0
        self.dead_until_s = 0.0
        self.waiting: deque[Work[M]] = deque()  # works that found no room here

    @property
    def room(self) -> bool:
        return self.busy < int(self.window)

    def succeeded(self) -> None:
        """It answered, whatever it said of the mail: so it is alive."""
        self.proven = True
        self.failures = 0.0
        self.dead_until_s = 0.0
        self.window = min(self.most, self.window + 1 / self.window)

    def failed(self, now_s: float, *, unreachable: bool = False, shut: bool = False) -> None:
        """It turned us away as a whole, or is *unreachable*: nobody there could be connected to.

        *shut*: it will turn us away until somebody changes something, and may mind being asked.
        """
        self.failures += 1 / self.window
        self.window = max(1.0, self.window - 1)
        if self.failures >= 1 or shut or (unreachable and not self.proven):
            self.dead_until_s = now_s + DEAD_S
            self.failures = 0.0
            self.window = 1.0
            self.proven = False


class Work(Generic[M]):
    """One message's deliveries that wait on a channel, by destination."""

    __slots__ = ("message", "group", "queues", "ready", "in_ring")

    def __init__(self, message: M, group: int) -> None:
        self.message = message
        self.group = group  # recipients of one destination that may go in one delivery
        self.queues: dict[Destination[M], deque[int]] = {}  # recipient indices
        self.ready: deque[Destination[M]] = deque()  # those that may have room
        self.in_ring = False


class Turns(Generic[M]):
    """Whose turn it is on one channel, of at most *limit* deliveries at once.

    With *adapts* each destination has a window of its own within that limit.
    """

    def __init__(self, limit: int, *, adapts: bool) -> None:
        self.limit = limit
        self.busy = 0
        self._adapts = adapts
        self._ring: deque[Work[M]] = deque()
        self._destinations: dict[Hashable, Destination[M]] = {}
        self._active: dict[Destination[M], None] = {}  # those with deliveries in flight
        self._strangers: dict[Destination[M], None] = {}  # unproven ones that wait for a place, in order
        self._proven: dict[Hashable, None] = {}  # names, the longest unused first

    def set_limit(self, limit: int) -> None:
        """Another limit from now on; what is in flight stays so."""
        self.limit = limit
        for destination in self._destinations.values():
            destination.most = max(limit, 1)
            if not self._adapts:
                destination.window = destination.most

    def destination(self, name: Hashable) -> Destination[M]:
        found = self._destinations.get(name)
        if found is None:
            most = max(self.limit, 1)
            found = Destination(name, min(FIRST_WINDOW, most) if self._adapts else most, most)
            found.proven = name in self._proven
            self._destinations[name] = found
        return found

    def add(self, work: Work[M], name: Hashable, index: int) -> None:
        """Let recipient *index* wait for destination *name*, once *work* is started."""
        destination = self.destination(name)
        queue = work.queues.get(destination)
        if queue is None:
            queue = work.queues[destination] = deque()
            work.ready.append(destination)
        queue.append(index)
        destination.queued += 1

    def start(self, work: Work[M]) -> None:
        """All has been added: from now on it has its turns."""
        self._to_ring(work)

    def _to_ring(self, work: Work[M]) -> None:
        if work.ready and not work.in_ring:
            work.in_ring = True
            self._ring.append(work)

    def next(self) -> tuple[M, Destination[M], list[int]] | None:
        """The next delivery that may start now, or None; it counts as busy until `done`."""
        while self._ring and self.busy < self.limit:
            work = self._ring.popleft()
            work.in_ring = False
            destination = self._with_room(work)
            if destination is None:
                continue  # it waits at its destinations
            indices = self._take(work, destination)
            self._to_ring(work)
            destination.busy += 1
            self.busy += 1
            self._active[destination] = None
            return work.message, destination, indices
        return None

    def _with_room(self, work: Work[M]) -> Destination[M] | None:
        while work.ready:
            destination = work.ready.popleft()
            if destination.room and (destination.proven or not self._adapts or self._may_try(destination)):
                return destination
            destination.waiting.append(work)
        return None

    def _may_try(self, stranger: Destination[M]) -> bool:
        """Whether a destination that has not served us may have a delivery now: it may be dead, and cost a time-out.

        While half of all deliveries are taken it gets no second, and a part of them is never for such ones.
        """
        if stranger.busy:
            return self.busy < self.limit // 2
        if self._places() > 0:
            return True
        self._strangers[stranger] = None
        return False

    def _places(self) -> int:
        """How many more deliveries may go to destinations that have not served us."""
        most = self.limit - self.limit // KEPT_FREE
        if self.busy < most:
            return most - self.busy
        return most - sum(destination.busy for destination in self._active if not destination.proven)

    def _take(self, work: Work[M], destination: Destination[M]) -> list[int]:
        queue = work.queues[destination]
        indices = [queue.popleft() for _ in range(min(work.group, len(queue)))]
        destination.queued -= len(indices)
        if queue:
            work.ready.append(destination)
        else:
            del work.queues[destination]
        return indices

    def give_back(self, message: M, destination: Destination[M], indices: list[int]) -> None:
        """A delivery that `next` gave out could not be started: it waits again, for its turn after the others'."""
        work = Work(message, len(indices))
        for index in indices:
            self.add(work, destination.name, index)
        self.start(work)
        self.done(destination)

    def done(self, destination: Destination[M]) -> None:
        """A delivery to *destination* has ended: whoever waits for its place gets it."""
        self.busy -= 1
        destination.busy -= 1
        if not destination.busy:
            del self._active[destination]
        for _ in range(int(destination.window) - destination.busy):
            if not self._wake(destination):
                break
        if self._strangers:
            for stranger in list(islice(self._strangers, max(0, self._places()))):
                del self._strangers[stranger]
                self._wake(stranger)
        if destination.window >= FIRST_WINDOW:
            self._forget(destination)

    def _wake(self, destination: Destination[M]) -> bool:
        """Let a work that waits at *destination* have its turn; False if there is none."""
        if not destination.waiting:
            return False
        work = destination.waiting.popleft()
        work.ready.append(destination)
        self._to_ring(work)
        return True

    def _forget(self, destination: Destination[M]) -> None:
        """Keep only destinations in use, and those in trouble; of others the name, if they have served us."""
        if not (destination.busy or destination.queued or destination.dead_until_s):
            self._destinations.pop(destination.name, None)
            self._proven.pop(destination.name, None)
            if destination.proven and self._adapts:
                self._proven[destination.name] = None
                if len(self._proven) > PROVEN_MAX:
                    del self._proven[next(iter(self._proven))]

    def drop(self, destination: Destination[M]) -> Iterator[tuple[M, int]]:
        """Take out everything that waits at *destination*, which is dead: (message, recipient index) each."""
        waiting, destination.waiting = destination.waiting, deque()
        self._strangers.pop(destination, None)
        for work in (*waiting, *(w for w in self._ring if destination in w.queues)):
            queue = work.queues.pop(destination, ())
            if destination in work.ready:
                work.ready.remove(destination)
            destination.queued -= len(queue)
            for index in queue:
                yield work.message, index

    def is_dead(self, name: Hashable, now_s: float) -> bool:
        """Whether destination *name* is being left alone; one whose time is over is tried again."""
        found = self._destinations.get(name)
        if found is None or not found.dead_until_s:
            return False
        if now_s < found.dead_until_s:
            return True
        found.dead_until_s = 0.0
        return False

    def expire(self, now_s: float) -> None:
        """Forget the trouble of destinations whose dead time is over and that nobody asks for."""
        for destination in list(self._destinations.values()):
            if destination.dead_until_s <= now_s:
                destination.dead_until_s = 0.0
                self._forget(destination)
