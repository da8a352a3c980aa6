"""From the recipients of a try to the spawners' deliveries, and back to outcomes."""

import os
from collections.abc import Sequence
from typing import Final

from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.send import policy
from qm.send.chores import SLICE, Chore, Chores
from qm.send.copies import Copies
from qm.send.handout import SMALL, whole
from qm.send.logbook import Logbook
from qm.send.message import Message, Recipient
from qm.send.schedule import Destination, Turns, Work
from qm.send.spawners import Flight, Spawner
from qm.send.trial import Trials
from qm.unix.loop import Loop
from qm.wire.delivery import RECIPIENTS_MAX, WEIGHT_MAX, Addressee, Delivery, Result

NO_COPY: Final = Result(b"Z", b"Unable to copy the message for its delivery. (#4.3.0)\n", b"4.3.0", b"")
DEAD: Final = Result(b"Z", b"This host could not be reached a short while ago; waiting. (#4.4.1)\n", b"4.4.1", b"")


class Deliveries:
    """*local* and *remote* are whose turn it is on each channel."""

    def __init__(
        self, loop: Loop, controls: Controls, log: Logbook, trials: Trials, chores: Chores,
        local: Turns[Message], remote: Turns[Message],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._controls = controls
        self._log = log
        self._trials = trials
        self._chores = chores
        self._local = local
        self._remote = remote
        self._number = 0  # of the latest delivery
        self._copies = Copies(lambda message, due: chores.begin(self._queue(message, due)), self._not_copied)

    def add(self, message: Message, due: list[Recipient]) -> Chore:
        """Let *due* wait for their turns, once there is a copy of a large message."""
        if message.file.message_length <= SMALL:
            yield from self._queue(message, due)
        else:
            self._copies.add(message, due)

    def turn(self) -> bool:
        """Copy a piece of a large message; whether there is more to do at once."""
        return self._copies.turn()

    def _queue(self, message: Message, due: list[Recipient]) -> Chore:
        """Those whose host is dead have their outcome at once."""
        here: Work[Message] = Work(message, 1)
        away: Work[Message] = Work(message, self._group(message))
        for count, recipient in enumerate(due, 1):
            if recipient.is_local:
                self._local.add(here, None, recipient.index)
            elif self._remote.is_dead(recipient.destination, self._loop.now_s()):
                self._trials.settle(message, recipient, DEAD)
            else:
                self._remote.add(away, recipient.destination, recipient.index)
            if not count % SLICE:
                yield
        self._local.start(here)
        self._remote.start(away)

    def _group(self, message: Message) -> int:
        """How many recipients may go in one delivery: the limit, as far as they fit into a record; one for VERP."""
        if policy.is_verp(message.file.envelope.sender):
            return 1
        most = min(self._controls.number("maxrcptperdelivery"), RECIPIENTS_MAX)
        return max(1, min(most, WEIGHT_MAX // message.heaviest))

    def _not_copied(self, message: Message, due: list[Recipient], error: Corrupt | OSError) -> None:
        """A large message, none of whose deliveries has begun."""
        if isinstance(error, Corrupt):
            self._trials.put_aside(message, error)
        else:
            message.drop_handout()
            self._wait(message, due, error)

    def _wait(self, message: Message, due: list[Recipient], error: OSError) -> None:
        self._log.alert(f"cannot copy {message.id.decode()}: {error.strerror}; its deliveries wait")
        self._chores.begin(self._trials.settle_all(message, due, NO_COPY))

    def _found_damaged(self, message: Message, due: list[Recipient], error: Corrupt) -> None:
        """Put it aside, now or, where others are at work with it or have been, at the end of this try."""
        if message.waiting == len(due) and not message.in_flight and not message.unsaved:
            self._trials.put_aside(message, error)
            return
        message.damage = error
        self._chores.begin(self._trials.settle_all(message, due, NO_COPY))

    def give_out(self, spawner: Spawner) -> None:
        """Whatever may start now."""
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
                message.handout = whole(message.fd, message.file)
            descriptor = message.handout.fd if len(message.recipients) == 1 else message.handout.descriptor()
        except Corrupt as error:
            spawner.turns.done(destination)
            self._found_damaged(message, recipients, error)
            return
        except OSError as error:
            spawner.turns.done(destination)
            self._wait(message, recipients, error)
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
        return Delivery(
            number, message.id, flags, sender, tuple(addressees), envelope.ret, envelope.envid, message.follower
        )

    def landed(self, number: int, flight: Flight, results: Sequence[Result]) -> None:
        """A delivery has ended."""
        message = flight.message
        if not message.in_flight and message.handout is not None and not message.handout.is_large:
            message.drop_handout()
        for index, result in zip(flight.indices, results, strict=True):
            self._log.ended(number, self._trials.settle(message, message.recipients[index], result))
            number += 1
        if flight.destination.dead_until_s:
            self._chores.begin(self._leave_alone(flight.destination))

    def _leave_alone(self, destination: Destination[Message]) -> Chore:
        """A destination has just been found dead: whatever waits for it waits for its next try."""
        for count, (message, index) in enumerate(self._remote.drop(destination), 1):
            self._trials.settle(message, message.recipients[index], DEAD)
            if not count % SLICE:
                yield
