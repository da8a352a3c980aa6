"""send's loop: what wakes it, and one turn: remember, open, give out, say."""

import os
import time
from collections.abc import Sequence
from typing import Final

from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.send import intake, policy
from qm.send.copies import Copies
from qm.send.handout import SMALL, Handout
from qm.send.logbook import Logbook
from qm.send.message import NOW, Backlog, Message, Recipient
from qm.send.schedule import Destination, Turns
from qm.send.spawners import LIMIT_MAX, Flight, Spawner
from qm.send.trial import Trials
from qm.unix.loop import Loop
from qm.wire import route, smtproute
from qm.wire.delivery import WEIGHT_MAX, Addressee, Delivery, Result, weight

CONTROLS: Final = (
    *route.CONTROLS, "bouncefrom", "bouncehost", "bouncemaxbytes", "concurrencylocal", "concurrencyremote",
    "delaywarning", "doublebouncehost", "doublebounceto", "maxrcptperdelivery", "queuelifetime", "smtproutes",
)  # fmt: skip
OPEN_MAX: Final = 2000  # messages that are open at once, a descriptor each; the rest waits in the backlog
BATCH: Final = 200  # messages that are opened, or recalled after a start, in one turn
TIDY_S: Final = 60.0
NO_COPY: Final = Result(b"Z", b"Unable to copy the message for its delivery. (#4.3.0)\n", b"4.3.0", b"")
DEAD: Final = Result(b"Z", b"This host could not be reached a short while ago; waiting. (#4.4.1)\n", b"4.4.1", b"")


class Sender:
    def __init__(self, loop: Loop, controls: Controls, log: Logbook, local_fd: int, remote_fd: int) -> None:
        """Raises OSError if the queue is not there."""
        self._loop = loop
        self._controls = controls
        self._log = log
        self._backlog = Backlog()
        self._trials = Trials(loop, controls, log, self._backlog)
        self._copies = Copies(self._queue, self._not_copied)
        self._number = 0  # of the latest delivery
        self._stopping = False
        self.failed = False
        limit = min(controls.number("concurrencylocal"), LIMIT_MAX)
        local: Turns[Message] = Turns(limit, adapts=False)
        remote: Turns[Message] = Turns(
            min(controls.number("concurrencyremote"), LIMIT_MAX), adapts=True
        )
        self._local = Spawner(b"qm-lspawn", local_fd, local, loop, self._landed, self._lost)
        self._remote = Spawner(b"qm-rspawn", remote_fd, remote, loop, self._landed, self._lost)
        self._left_over = intake.left_over()
        self._intake = intake.Intake(loop, self._arrived)
        self._wakeup = loop.after(0.0, self._soon)
        loop.after(0.0, self._recall_some)
        loop.before_wait.append(self._turn)
        loop.after(TIDY_S, self._tidy)

    # what wakes us

    def _arrived(self, name: bytes, kind: int) -> None:
        self._log.new(name)
        self._backlog.add_fresh(name, kind)

    def _recall_some(self) -> None:
        """Put messages of an earlier life into the backlog, a batch at a time, due when their state says."""
        batch, self._left_over = self._left_over[:BATCH], self._left_over[BATCH:]
        for name in batch:
            self._trials.recall(name)
        if self._left_over:
            self._loop.after(0.0, self._recall_some)

    def all_due(self) -> None:
        """SIGALRM: try everything now, whatever is known of its destinations."""
        left_over, self._left_over = self._left_over, []
        for name in left_over:
            self._backlog.defer(name, NOW)
        self._backlog.all_due()
        self._remote.turns.expire(float("inf"))

    def reload(self) -> None:
        """SIGHUP: read the control files again."""
        if self._controls.refresh(self._log.warning):
            try:
                self._trials.reload()
            except smtproute.BadRoute as error:
                self._log.warning(f"{error.detail}; keeping the last good value")
        for spawner, name in ((self._local, "concurrencylocal"), (self._remote, "concurrencyremote")):
            spawner.turns.set_limit(min(self._controls.number(name), LIMIT_MAX) if spawner.alive else 0)

    def stop(self) -> None:
        """SIGTERM: start nothing any more; end once nothing is in flight (qmail.md 7.3)."""
        self._stopping = True
        self._intake.stop()

    def close(self) -> None:
        """Let the spawners and workers go."""
        self._local.close()
        self._remote.close()
        self._trials.bounces.close()

    def _lost(self, name: bytes) -> None:
        self.failed = True
        self.stop()

    def _tidy(self) -> None:
        self._remote.turns.expire(self._loop.now_s())
        self._loop.after(TIDY_S, self._tidy)

    # one turn

    def _turn(self) -> None:
        """Before each wait."""
        self._trials.flush()
        if not self._stopping:
            self._open_some()
            if self._copies.turn():
                self._loop.after(0.0, self._soon)
            self._give_out(self._local)
            self._give_out(self._remote)
            self._trials.flush()  # what ended without a delivery
            self._sleep_until_due()
        elif not (self._local.turns.busy or self._remote.turns.busy or self._trials.bounces.busy):
            self._loop.stop()
        self._log.status(self._local.turns, self._remote.turns, self._stopping)
        self._log.flush()

    def _soon(self) -> None:
        """A timer whose only effect is another turn."""

    def _sleep_until_due(self) -> None:
        self._wakeup.cancel()
        due_s = self._backlog.next_due_s()
        if due_s is not None and len(self._trials.open) < OPEN_MAX:
            self._wakeup = self._loop.after(max(0.0, due_s - time.time()), self._soon)

    def _open_some(self) -> None:
        now_s = int(time.time())
        for _ in range(min(BATCH, OPEN_MAX - len(self._trials.open))):
            found = self._backlog.next(now_s)
            if found is None:
                return
            self._open(*found, now_s)
        if len(self._trials.open) < OPEN_MAX:
            self._loop.after(0.0, self._soon)

    def _open(self, name: bytes, due_s: int, now_s: int) -> None:
        message = self._trials.start(name, due_s, now_s)
        if message is None:
            return
        due = self._trials.due(message, due_s)
        if not due:
            return
        if message.file.message_length <= SMALL:
            self._queue(message, due)
        else:
            self._copies.add(message, due)

    def _queue(self, message: Message, due: list[Recipient]) -> None:
        """Let *due* wait for their turns; those whose host is dead have their outcome."""
        here = [(None, r.index) for r in due if r.is_local]
        if here:
            self._local.turns.add(message, here)
        if len(here) == len(due):
            return
        now_s = self._loop.now_s()
        away = []
        for recipient in due:
            if recipient.is_local:
                continue
            if self._remote.turns.is_dead(recipient.destination, now_s):
                self._trials.settle(message, recipient, DEAD)
            else:
                away.append((recipient.destination, recipient.index))
        self._remote.turns.add(message, away, self._group(message))

    def _group(self, message: Message) -> int:
        """How many recipients may go in one delivery: the limit, as far as they fit into a record; one for VERP."""
        envelope = message.file.envelope
        if policy.is_verp(envelope.sender):
            return 1
        pairs = zip(message.recipients, envelope.recipients, strict=True)
        largest = max(weight(Addressee(r.index, r.address, w.notify, w.orcpt)) for r, w in pairs)
        return max(1, min(self._controls.number("maxrcptperdelivery"), WEIGHT_MAX // largest))

    def _not_copied(self, message: Message, due: list[Recipient], error: Corrupt | OSError) -> None:
        if isinstance(error, Corrupt):
            self._trials.put_aside(message, error)
            return
        self._log.alert(f"cannot copy {message.id.decode()}: {error.strerror}; its deliveries wait")
        message.drop_handout()
        for recipient in due:
            self._trials.settle(message, recipient, NO_COPY)

    # deliveries

    def _give_out(self, spawner: Spawner) -> None:
        while spawner.alive and not spawner.full:
            turn = spawner.turns.next()
            if turn is None:
                return
            self._launch(spawner, *turn)

    def _launch(
        self, spawner: Spawner, message: Message, destination: Destination[Message], indices: list[int]
    ) -> None:
        recipients = [message.recipients[index] for index in indices]
        try:
            if message.handout is None:
                message.handout = Handout(message.fd, message.file)
                message.handout.step()
            descriptor = message.handout.fd if len(message.recipients) == 1 else message.handout.descriptor()
        except (Corrupt, OSError) as error:
            spawner.turns.done(destination)
            self._not_copied(message, recipients, error)
            return
        first = self._number + 1
        delivery = self._delivery(first, message, recipients)
        if spawner.launch(delivery, Flight(message, destination, indices), descriptor):
            message.in_flight += 1
            self._number += len(recipients)
            for number, recipient in enumerate(recipients, first):
                self._log.starting(number, message, recipient)
        else:
            spawner.turns.give_back(message, destination, indices)
        if descriptor != message.handout.fd:
            os.close(descriptor)

    @staticmethod
    def _delivery(number: int, message: Message, recipients: list[Recipient]) -> Delivery:
        envelope = message.file.envelope
        flags = b"d" if message.again else b""
        if envelope.eight_bit:
            flags += b"8"
        if envelope.smtputf8:
            flags += b"U"
        sender = policy.delivery_sender(envelope.sender, recipients[0].address)
        wanted = [envelope.recipients[r.index] for r in recipients]
        addressees = [Addressee(r.index, r.address, w.notify, w.orcpt) for r, w in zip(recipients, wanted, strict=True)]
        return Delivery(number, message.id, flags, sender, tuple(addressees), envelope.ret, envelope.envid)

    def _landed(self, number: int, flight: Flight, results: Sequence[Result]) -> None:
        message = flight.message
        if not message.in_flight and message.handout is not None and not message.handout.is_large:
            message.drop_handout()
        for index, result in zip(flight.indices, results, strict=True):
            self._log.ended(number, result)
            self._trials.settle(message, message.recipients[index], result)
            number += 1
        if flight.destination.dead_until_s:
            self._leave_alone(flight.destination)

    def _leave_alone(self, destination: Destination[Message]) -> None:
        """A destination has just been found dead: whatever waits for it waits for its next try."""
        for message, index in list(self._remote.turns.drop(destination)):
            self._trials.settle(message, message.recipients[index], DEAD)
