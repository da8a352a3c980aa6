"""From a name in queue/cur to a message that knows its recipients and their past."""

import os
from typing import Final

from qm.disk import queue, queuefile, state
from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.regular import Irregular, open_regular
from qm.send.chores import SLICE, Chore, Steps
from qm.send.handout import SMALL
from qm.send.logbook import Logbook
from qm.send.message import FRESH, NOW, Backlog, Clock, Message, Recipient
from qm.wire import route, smtproute
from qm.wire.delivery import Addressee, weight

AGAIN_S: Final = 123  # qmail's SLEEP_SYSFAIL: after trouble of our own
_OUTCOMES: Final = (b"K", b"Z", b"D")


class Opener:
    """Files that cannot be read are tried again later, damaged ones are put aside; both are said."""

    def __init__(self, controls: Controls, log: Logbook, backlog: Backlog, clock: Clock) -> None:
        self._controls = controls
        self._log = log
        self._backlog = backlog
        self._clock = clock
        self.reload()

    def reload(self) -> None:
        """Take the control files as they are now; raises BadRoute, with what was."""
        self._routes = smtproute.routes(self._controls)
        self._rules = route.rules(self._controls)

    def open(self, name: bytes, due_s: int, now_s: int) -> Message | None:
        """The message, whose recipients are not known yet; None if it has gone, or cannot be read."""
        try:
            fd = open_regular(b"queue/cur/" + name)
        except FileNotFoundError:
            return None  # somebody took it out by hand
        except Irregular as error:
            self.unreadable(name, Corrupt(error.strerror))
            return None
        except OSError as error:
            self.trouble(name, error)
            return None
        try:
            message = Message(name, fd, queuefile.read(fd), now_s, again=due_s != FRESH)
            if message.file.message_length <= SMALL:
                for _ in queuefile.checked_message(fd, message.file):  # a large one is checked while it is copied
                    pass
        except (Corrupt, OSError) as error:
            os.close(fd)
            self.unreadable(name, error)
            return None
        return message

    def trouble(self, name: bytes, error: OSError) -> None:
        self._log.alert(f"cannot read {name.decode()} in the queue: {error.strerror}; trying again in {AGAIN_S} s")
        self._backlog.defer(name, int(self._clock()) + AGAIN_S)

    def unreadable(self, name: bytes, error: Corrupt | OSError) -> None:
        if isinstance(error, OSError):
            self.trouble(name, error)
            return
        try:
            queue.set_aside(queue.CUR, name)
        except OSError as failure:
            self.trouble(name, failure)
            return
        self._log.alert(f"{name.decode()} is damaged ({error}); kept in {queue.BAD}, not delivered")

    def learn(self, message: Message) -> Chore:
        """Find out where each recipient is, and what the state file says of it; raises OSError."""
        rules, routes = self._rules, self._routes
        for index, (address, notify, orcpt) in enumerate(message.file.envelope.recipients):
            where = route.route(rules, address)
            destination = None
            if isinstance(where, route.Remote):
                destination = smtproute.destination(routes, where.address.rpartition(b"@")[2])
                message.heaviest = max(message.heaviest, weight(Addressee(index, where.address, notify, orcpt)))
            message.recipients.append(Recipient(index, where.address, destination))
            if not (index + 1) % SLICE:
                yield
        if message.again:
            yield from self._recall(message)

    @staticmethod
    def _recall(message: Message) -> Chore:
        path = b"queue/state/" + message.id
        message.has_state = os.path.lexists(path)
        for count, outcome in enumerate(state.read(path), 1):
            if outcome.letter == b"B":
                message.reported = True
            elif outcome.letter == b"W":
                message.warned = True
            elif outcome.recipient < len(message.recipients):
                message.recipients[outcome.recipient].learn(outcome)
            if not count % SLICE:
                yield

    def recall(self, name: bytes) -> Chore:
        """Put a message of an earlier life into the backlog: due when its state says, or at once."""
        try:
            due_s = yield from self._due_s(name)
        except (Corrupt, OSError):
            due_s = NOW  # its try will say what is wrong
        self._backlog.defer(name, due_s)

    @staticmethod
    def _due_s(name: bytes) -> Steps[int]:
        fd = open_regular(b"queue/cur/" + name)
        try:
            count = len(queuefile.read(fd).envelope.recipients)
        finally:
            os.close(fd)
        latest = {}
        for number, outcome in enumerate(state.read(b"queue/state/" + name), 1):
            if outcome.letter in _OUTCOMES:
                latest[outcome.recipient] = outcome.next_s if outcome.letter == b"Z" else None
            if not number % SLICE:
                yield
        due = [next_s for next_s in latest.values() if next_s is not None]
        return min(due) if due and len(latest) >= count else NOW
