"""What a worker of the queue service keeps from connection to connection."""

import signal
from collections.abc import Callable

from qm.disk.accept import Store
from qm.queue.policy import Rules
from qm.wire import date, door


class Shop:
    """One for each worker."""

    def __init__(self, rules: Rules, is_crowded: Callable[[], bool]) -> None:
        self.rules = rules
        self.is_crowded = is_crowded  # whether connections wait for a worker
        self.stopping = False  # SIGTERM has come
        self.leave: Callable[[], None] | None = None  # of the session in hand; may come between any two of its steps
        self.buffer = memoryview(bytearray(door.DATAGRAM_MAX + 1))
        self._store: Store | None = None
        self._date = (0, b"")

    def listen(self) -> None:
        """SIGTERM lets the session leave; it cuts no step on the disk, and loses nothing that has come."""
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        if self.leave is not None:
            self.leave()

    def store(self) -> Store:
        """Raises NotQueued if the queue is not there."""
        if self._store is None:
            self._store = Store()
        return self._store

    def reopen(self) -> None:
        """After trouble: the queue's directories may have been replaced."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def date(self, time_s: int) -> bytes:
        if self._date[0] != time_s:
            self._date = (time_s, date.rfc5322(time_s))
        return self._date[1]
