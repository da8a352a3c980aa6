"""The spawner between send and the workers: one record in, one job out, one outcome back."""

import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from qm.disk.control import Controls
from qm.errors import Temporary
from qm.rspawn import keeper
from qm.rspawn.door import Door
from qm.rspawn.keeper import Keeper
from qm.rspawn.memory import Routes, Silent
from qm.unix import fds, log
from qm.unix.chain import Work
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade
from qm.wire import smtproute
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_outcome, unpack_delivery
from qm.wire.record import Malformed
from qm.wire.remotejob import Job, pack_job, unpack_report
from qm.wire.smtproute import Destination

NAME: Final = b"qm-rspawn"
TRADE: Final = Trade(b"qm-remote", b"sends")
CONTROLS: Final = ("concurrencyremote", "remoteidle", *smtproute.CONTROLS)

JOBS_MAX: Final = 1000  # of one worker; its sessions end earlier
_CUT_SHORT: Final = b"The delivery was cut short. (#4.3.0)\n"


class _Order(NamedTuple):
    """A delivery that send wants, with its message."""

    delivery: Delivery
    record: bytes
    descriptors: list[int]
    destination: Destination


def limits(controls: Controls) -> Limits:
    """As many workers as send has deliveries; an idle one gives way when another destination needs it."""
    workers = max(1, controls.number("concurrencyremote"))
    return Limits(workers, workers, JOBS_MAX, float(max(1, controls.number("remoteidle"))))


class Spawner:
    def __init__(
        self,
        channel: socket.socket,
        entrance: Callable[[Destination], Work],
        controls: Controls,
        listener: socket.socket | None = None,
        logins: Keeper | None = None,
    ) -> None:
        self._channel = channel
        self._logins = logins
        channel.setblocking(False)
        self._controls = controls
        self._ways = smtproute.routes(controls)
        self._loop = Loop()
        self._pool: Pool[Destination] = Pool(self._loop, TRADE, entrance, limits(controls), rekey=self._is_open)
        self._routes = Routes()
        self._silent = Silent()
        if listener is not None:
            Door(self._loop, listener, self._silent)
        self._held: _Order | None = None  # there was no worker for it: nothing more is read
        self._outcomes = deque[bytes]()  # that send has not taken yet
        self._reading = False
        self._gone = False  # send, or our time
        self._loop.on_signal(signal.SIGTERM, self._end)
        self._loop.on_signal(signal.SIGHUP, self._reload)

    def run(self) -> None:
        """Until send has gone and everything has ended."""
        self._read_or_not()
        self._loop.run()
        self._pool.close()

    # From send

    def _readable(self) -> None:
        try:
            record, descriptors = fds.recv_record(self._channel)
        except BlockingIOError:
            return
        except (OSError, Malformed) as error:
            log.alert(NAME, f"send's channel: {error}")
            record, descriptors = b"", []
        try:
            delivery = unpack_delivery(record) if record else None
        except Malformed as error:
            log.alert(NAME, f"send gave a bad record: {error}")
            delivery = None
        if delivery is None:
            fds.close_all(descriptors)
            self._end()
            return
        self._deliver(delivery, record, descriptors)

    def _end(self) -> None:
        """Take no more; leave when what is in hand has ended."""
        self._gone = True
        self._read_or_not()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._gone and not self._pool.busy and self._held is None and not self._outcomes:
            self._loop.stop()

    def _reload(self) -> None:
        """SIGHUP: read the control files again, as send does, which groups recipients by the same smtproutes."""
        if self._controls.refresh(lambda text: log.warning(NAME, text)):
            try:
                self._ways = smtproute.routes(self._controls)
            except smtproute.BadRoute as error:
                log.warning(NAME, f"{error.detail}; keeping the last good value")
            self._pool.limits = limits(self._controls)
        if self._logins is None:
            keeper.warn_of_new_file()
            return
        try:
            self._logins.refresh()
        except Temporary as error:
            log.warning(NAME, f"{error.detail}; keeping the last good value")
        self._pool.retire_all()  # what has seen a password that is no more

    def _is_open(self, destination: Destination) -> bool:
        """Whether who has served *destination* may serve another: he knows nobody's password."""
        return self._login(destination) is None

    def _login(self, destination: Destination) -> int | None:
        if self._logins is None or not destination.relay or destination.lmtp:
            return None
        return self._logins.find((destination.host, destination.port))

    def _deliver(self, delivery: Delivery, record: bytes, descriptors: list[int]) -> None:
        hosts = {recipient.address.rpartition(b"@")[2] for recipient in delivery.recipients}
        destinations = {smtproute.destination(self._ways, host) for host in hosts}
        if len(destinations) != 1:  # smtproutes has changed between send and us
            log.warning(NAME, "recipients of different destinations in one delivery; they are tried again")
            fds.close_all(descriptors)
            self._fail(delivery, b"Recipients of different destinations in one delivery. (#4.3.0)\n")
            return
        order = _Order(delivery, record, descriptors, destinations.pop())
        if self._pool.room(order.destination):
            self._start(order)
        else:
            self._held = order
            self._read_or_not()

    # To a worker, and back

    def _start(self, order: _Order) -> None:
        now_s = time.monotonic()
        route = self._routes.find(order.destination, now_s)
        skipped = self._silent.skipped(now_s, order.delivery.number)
        job = pack_job(Job(order.destination, route, skipped, order.record))
        try:
            login = self._login(order.destination)
            descriptors = order.descriptors if login is None else [*order.descriptors, login]
            self._pool.give(order.destination, job, descriptors, partial(self._ended, order))
        except OSError as error:
            log.alert(NAME, f"cannot start a delivery: {error.strerror}")
            self._fail(order.delivery, b"Unable to start a delivery. (#4.3.0)\n")
        finally:
            fds.close_all(order.descriptors)

    def _ended(self, order: _Order, report: bytes | None) -> None:
        outcome = self._learn(order, report) if report is not None else b""
        # a worker may speak of its own delivery only
        if outcome.startswith(b"%d\0" % order.delivery.number):
            self._tell(outcome)
        else:
            self._fail(order.delivery, _CUT_SHORT)
        held, self._held = self._held, None
        if held is not None:
            self._restart(held)
        self._leave_if_done()

    def _restart(self, held: _Order) -> None:
        if self._pool.room(held.destination):
            self._start(held)
            self._read_or_not()
        else:
            self._held = held

    def _learn(self, order: _Order, record: bytes) -> bytes:
        """Remember what a report brings; gives the outcome, or nothing if the report is none."""
        try:
            report = unpack_report(record)
        except Malformed as error:
            log.alert(NAME, f"a worker gave a bad report: {error}")
            return b""
        now_s = time.monotonic()
        if report.route:
            self._routes.keep(order.destination, report.route)
        for address in report.timed_out:
            self._silent.timed_out(address, now_s)
        for address in report.connected:
            self._silent.connected(address)
        return report.outcome

    # To send

    def _fail(self, delivery: Delivery, text: bytes) -> None:
        results = (Result(b"Z", text, b"4.3.0"),) * len(delivery.recipients)
        self._tell(pack_outcome(Outcome(delivery.number, Health.UNKNOWN, results)))

    def _tell(self, outcome: bytes) -> None:
        if self._outcomes or not self._taken(outcome):
            self._outcomes.append(outcome)
            self._loop.watch_write(self._channel.fileno(), self._flush)
            self._read_or_not()

    def _taken(self, outcome: bytes) -> bool:
        """Whether send has taken *outcome*, or never will."""
        try:
            fds.send_record(self._channel, outcome)
        except BlockingIOError:
            return False
        except OSError:
            pass  # send has gone
        return True

    def _flush(self) -> None:
        while self._outcomes and self._taken(self._outcomes[0]):
            self._outcomes.popleft()
        if not self._outcomes:
            self._loop.unwatch_write(self._channel.fileno())
            self._read_or_not()
            self._leave_if_done()

    def _read_or_not(self) -> None:
        """Nothing is taken from send while a delivery is held, or outcomes are not taken by it."""
        wanted = not (self._gone or self._held or self._outcomes)
        if wanted and not self._reading:
            self._loop.watch(self._channel.fileno(), self._readable)
        elif self._reading and not wanted:
            self._loop.unwatch(self._channel.fileno())
        self._reading = wanted
