"""A message that send works on, and those that wait."""

import heapq
import os
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from qm.disk.queuefile import Corrupt, QueueFile
from qm.disk.state import Outcome
from qm.send.handout import Handout

Clock = Callable[[], float]  # seconds since 1970, as time.time

UNDECIDED: Final = b""  # a recipient's letter before its first outcome; after: K, Z or D

FRESH: Final = -1  # due time of a message that was never tried
FOUND: Final = -2  # of one that was in new/ when we began: an earlier life may have tried it before the power failed
NOW: Final = 0  # due time of a message whose every recipient is to be tried, whatever their own times say


class Recipient:
    """One recipient and what became of it."""

    __slots__ = ("index", "address", "is_local", "destination", "letter", "next_s", "last")

    def __init__(self, index: int, address: bytes, destination: Hashable) -> None:
        self.index = index
        self.address = address  # rewritten: what the spawner gets
        self.is_local = destination is None
        self.destination = destination  # who takes it, for whose turn it is; None: we do
        self.letter = UNDECIDED
        self.next_s = 0
        self.last: Outcome | None = None

    @property
    def settled(self) -> bool:
        return self.letter in (b"K", b"D")

    def learn(self, outcome: Outcome) -> None:
        self.letter = outcome.letter
        self.next_s = outcome.next_s
        self.last = outcome


class Message:
    """A queue file that is open for a try; forgotten at the try's end."""

    __slots__ = (
        "id", "fd", "file", "born_s", "started_s", "again", "dying", "recipients", "heaviest", "waiting", "in_flight",
        "handout", "damage", "unsaved", "has_state", "is_named", "reported", "warned", "follower",
    )  # fmt: skip

    def __init__(self, name: bytes, fd: int, file: QueueFile, started_s: int, again: bool) -> None:
        self.id = name
        self.fd = fd  # the queue file
        self.file = file
        self.born_s = file.envelope.born_ns // 1_000_000_000
        self.started_s = started_s
        self.again = again  # an earlier try was made: it may have ended without our knowing
        self.dying = False  # this is the last try
        self.recipients: list[Recipient] = []
        self.heaviest = 1  # the largest `weight` of a recipient in a delivery's record
        self.waiting = 0  # recipients of this try without an outcome
        self.in_flight = 0  # deliveries that a spawner has
        self.handout: Handout | None = None
        self.damage: Corrupt | None = None  # found in the middle of a try
        self.unsaved: list[Outcome] = []
        self.follower = b""  # uid.pid of who wants to see this try
        self.has_state = False  # there is a state file
        self.is_named = False  # and its name is durable, for all that we know
        self.reported = False  # the reports of its end are in the queue
        self.warned = False  # so is the delay warning

    def all_settled(self) -> bool:
        return all(r.settled for r in self.recipients)

    def next_try_s(self) -> int:
        """When the first of those who wait is due."""
        return min(r.next_s for r in self.recipients if not r.settled)

    def drop_handout(self) -> None:
        if self.handout is not None:
            self.handout.close()
            self.handout = None

    def close(self) -> None:
        self.drop_handout()
        os.close(self.fd)


class Backlog:
    """The IDs of messages that wait: fresh ones in order, deferred ones by due time; about 200 bytes each."""

    def __init__(self) -> None:
        self._fresh: deque[tuple[bytes, int]] = deque()
        self._due: list[tuple[int, bytes]] = []
        self._fresh_next = True

    def __len__(self) -> int:
        return len(self._fresh) + len(self._due)

    def add_fresh(self, name: bytes, kind: int = FRESH) -> None:
        self._fresh.append((name, kind))

    def defer(self, name: bytes, due_s: int) -> None:
        heapq.heappush(self._due, (due_s, name))

    def next(self, now_s: int) -> tuple[bytes, int] | None:
        """The next message to try, and when it was due, FRESH or FOUND if new; new and deferred mail take turns."""
        due = bool(self._due) and self._due[0][0] <= now_s
        if self._fresh and (self._fresh_next or not due):
            self._fresh_next = False
            return self._fresh.popleft()
        self._fresh_next = True
        if due:
            due_s, name = heapq.heappop(self._due)
            return name, due_s
        return None

    def next_due_s(self) -> int | None:
        return self._due[0][0] if self._due else None

    def all_due(self) -> None:
        """Make everything due (SIGALRM)."""
        self._due = [(NOW, name) for _, name in self._due]
        heapq.heapify(self._due)
