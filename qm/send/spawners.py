"""send's side of lspawn and rspawn: whose turn it is, what is in flight, and what comes back."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from qm.send.message import Message
from qm.send.schedule import Destination, Turns
from qm.unix import fds, log
from qm.unix.loop import Loop
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_delivery, unpack_outcome
from qm.wire.record import Malformed

NAME: Final = b"qm-send"
LIMIT_MAX: Final = 120  # lspawn's and rspawn's workers
RESULTS_MAX: Final = 400  # recipients' outcomes in a turn of the loop: some 6 ms
_OURS: Final = Result(b"Z", b"The delivery was cut short. (#4.3.0)\n", b"4.3.0", b"")


class Flight(NamedTuple):
    message: Message
    destination: Destination[Message]
    indices: list[int]


Landed = Callable[[int, Flight, Sequence[Result]], None]


class Spawner:
    """One of the two; *landed*(number, flight, results) is called for each delivery that has ended."""

    def __init__(
        self, name: bytes, fd: int, turns: Turns[Message], loop: Loop, landed: Landed, lost: Callable[[bytes], None]
    ) -> None:
        self.name = name
        self.turns = turns
        self._channel = socket.socket(fileno=os.dup(fd))
        self._channel.setblocking(False)
        self._loop = loop
        self._landed = landed
        self._lost = lost
        self._flights: dict[int, Flight] = {}
        self.full = False  # the spawner does not read: wait until it does
        self.alive = True
        loop.watch(self._channel.fileno(), self._readable)

    def launch(self, delivery: Delivery, flight: Flight, descriptor: int) -> bool:
        """Hand a delivery out; False if the spawner takes no more just now."""
        try:
            fds.send_record(self._channel, pack_delivery(delivery), (descriptor,))
        except BlockingIOError:
            self.full = True
            self._loop.watch_write(self._channel.fileno(), self._writable)
            return False
        except OSError as error:
            self._end(error.strerror)
            return False
        self._flights[delivery.number] = flight
        return True

    def _writable(self) -> None:
        self.full = False
        self._loop.unwatch_write(self._channel.fileno())

    def _readable(self) -> None:
        left = RESULTS_MAX
        while left > 0:
            try:
                record, descriptors = fds.recv_record(self._channel)
                fds.close_all(descriptors)
                if not record:
                    self._end("it has closed its channel")
                    return
                outcome = unpack_outcome(record)
            except BlockingIOError:
                return
            except (OSError, Malformed) as error:
                self._end(str(error))
                return
            left -= max(1, len(outcome.results))
            self._outcome(outcome)

    def _outcome(self, outcome: Outcome) -> None:
        flight = self._flights.pop(outcome.number, None)
        if flight is None:
            log.warning(NAME, f"{self.name.decode()} reported a delivery that it does not have")
            return
        results = outcome.results
        if len(results) != len(flight.indices):
            results = (_OURS,) * len(flight.indices)
        self._land(outcome.number, flight, results, outcome.health)

    def _land(self, number: int, flight: Flight, results: Sequence[Result], health: Health) -> None:
        destination = flight.destination
        if health is Health.UP:
            destination.succeeded()
        elif health is not Health.UNKNOWN:
            now_s = self._loop.now_s()
            destination.failed(now_s, unreachable=health is Health.DEAD, shut=health is Health.SHUT)
        self.turns.done(destination)
        flight.message.in_flight -= 1
        self._landed(number, flight, results)

    def _end(self, why: str | None) -> None:
        """The spawner is lost: what it had is deferred, nothing more is given to it (qmail.md 7.3)."""
        if not self.alive:
            return
        self.alive = False
        self.turns.limit = 0
        self._loop.unwatch(self._channel.fileno())
        self._loop.unwatch_write(self._channel.fileno())
        log.alert(NAME, f"lost {self.name.decode()}: {why}")
        for number, flight in sorted(self._flights.items()):
            self._land(number, flight, (_OURS,) * len(flight.indices), Health.UNKNOWN)
        self._flights.clear()
        self._lost(self.name)

    def close(self) -> None:
        self._channel.close()
