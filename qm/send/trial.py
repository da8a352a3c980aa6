"""One message's try, from opening its file to its end: done with, or back to the backlog.

Everything that must be remembered goes through the ledger, and only what it has written counts: a try ends in `flush`.
"""

import os
import time
from typing import Final

from qm.disk import queue, queuefile, state
from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.state import Outcome
from qm.send import policy, schedule
from qm.send.bounce import Bounces
from qm.send.handout import SMALL
from qm.send.ledger import Ledger
from qm.send.logbook import Logbook
from qm.send.message import FOUND, FRESH, NOW, Backlog, Message, Recipient
from qm.send.schedule import LOCAL_SKIP, REMOTE_SKIP
from qm.unix.loop import Loop
from qm.wire import route, smtproute
from qm.wire.delivery import Result

AGAIN_S: Final = 123  # qmail's SLEEP_SYSFAIL: after trouble of our own
BAD_ADDRESS: Final = Result(b"D", b"This address has a line end in it. (#5.1.3)\n", b"5.1.3", b"")


class Trials:
    """The messages that are open, by ID."""

    def __init__(self, loop: Loop, controls: Controls, log: Logbook, backlog: Backlog) -> None:
        self.open: dict[bytes, Message] = {}
        self._controls = controls
        self.reload()
        self._log = log
        self._backlog = backlog
        self._ledger = Ledger(loop)
        self.bounces = Bounces(loop, controls, log, self._reported)

    def reload(self) -> None:
        """Take the control files as they are now; raises BadRoute, with what was."""
        smtproute.check(self._controls.table("smtproutes"))
        self._routes = self._controls.table("smtproutes")
        self._rules = route.rules(self._controls)

    def start(self, name: bytes, due_s: int, now_s: int) -> Message | None:
        """Open a message and see which recipients are due (`due`); None if it has ended already, or cannot be read."""
        try:
            fd = os.open(b"queue/cur/" + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # somebody took it out by hand
        except OSError as error:
            self._trouble(name, error)
            return None
        try:
            message = Message(name, fd, queuefile.read(fd), now_s, again=due_s != FRESH)
            if message.file.message_length <= SMALL:
                for _ in queuefile.checked_message(fd, message.file):  # a large one is checked while it is copied
                    pass
            if due_s != FRESH:
                self._recall(message)
        except (Corrupt, OSError) as error:
            os.close(fd)
            self._unreadable(name, error)
            return None
        if due_s in (FRESH, FOUND):
            self._log.info(message)
        self.open[name] = message
        return message

    def _trouble(self, name: bytes, error: OSError) -> None:
        self._log.alert(f"cannot read queue/cur/{name.decode()}: {error.strerror}; trying again in {AGAIN_S} s")
        self._backlog.defer(name, int(time.time()) + AGAIN_S)

    def _unreadable(self, name: bytes, error: Corrupt | OSError) -> None:
        if isinstance(error, OSError):
            self._trouble(name, error)
            return
        try:
            queue.set_aside(queue.CUR, name)
        except OSError as failure:
            self._trouble(name, failure)
            return
        self._log.alert(f"{name.decode()} is damaged ({error}); kept in {queue.BAD}, not delivered")

    def put_aside(self, message: Message, error: Corrupt) -> None:
        """The message turned out damaged before anything of this try was sent."""
        self._forget(message)
        self._unreadable(message.id, error)

    def recall(self, name: bytes) -> None:
        """Put a message of an earlier life into the backlog: due when its state says, or at once."""
        try:
            fd = os.open(b"queue/cur/" + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                count = len(queuefile.read(fd).envelope.recipients)
            finally:
                os.close(fd)
            outcomes = {o.recipient: o for o in state.load(b"queue/state/" + name) if o.letter in (b"K", b"D", b"Z")}
        except (Corrupt, OSError):
            self._backlog.defer(name, NOW)  # its try will say what is wrong
            return
        due = [o.next_s for o in outcomes.values() if o.letter == b"Z"]
        self._backlog.defer(name, min(due) if due and len(outcomes) >= count else NOW)

    def _recall(self, message: Message) -> None:
        """Learn what the state file says."""
        message.recipients = self._route(message)
        outcomes = state.load(b"queue/state/" + message.id)
        message.has_state = bool(outcomes)
        for outcome in outcomes:
            if outcome.letter == b"B":
                message.reported = True
            elif outcome.letter == b"W":
                message.warned = True
            elif outcome.recipient < len(message.recipients):
                message.recipients[outcome.recipient].learn(outcome)

    def _route(self, message: Message) -> list[Recipient]:
        recipients = []
        for index, recipient in enumerate(message.file.envelope.recipients):
            where = route.route(self._rules, recipient.address)
            destination = None
            if isinstance(where, route.Remote):
                destination = smtproute.destination(self._routes, where.address.rpartition(b"@")[2])
            recipients.append(Recipient(index, where.address, destination))
        return recipients

    def due(self, message: Message, due_s: int) -> list[Recipient]:
        """The recipients that this try is for; if there are none, the try ends here."""
        if not message.recipients:
            message.recipients = self._route(message)
        message.dying = policy.is_dying(message.born_s, message.started_s, self._controls.number("queuelifetime"))
        everybody = message.dying or due_s in (FRESH, FOUND, NOW)
        due = [r for r in message.recipients if not r.settled and (everybody or r.next_s <= message.started_s)]
        message.waiting = len(due)
        for recipient in [r for r in due if b"\n" in r.address]:
            due.remove(recipient)
            self.settle(message, recipient, BAD_ADDRESS)
        if not message.waiting:
            self._end(message)
        return due

    def settle(self, message: Message, recipient: Recipient, result: Result) -> None:
        """A recipient's outcome of this try."""
        letter, text, next_s = result.letter, result.text, 0
        if letter == b"Z" and message.dying:
            letter, text = b"D", policy.final_text(text)
        if letter == b"Z":
            skip = LOCAL_SKIP if recipient.is_local else REMOTE_SKIP
            next_s = schedule.next_try_s(message.born_s, message.started_s, skip)
        mta = b"" if result.mta == b"-" else result.mta
        now_s = int(time.time())
        outcome = Outcome(now_s, recipient.index, letter, next_s, text, result.status, mta, result.diagnostic)
        outcome = outcome._replace(relayed=True) if result.dsn else outcome
        recipient.learn(outcome)
        message.waiting -= 1
        self._ledger.note(message, outcome)

    def flush(self) -> None:
        """Write what has happened; end the tries that are over."""
        for message in self._ledger.flush():
            if not message.waiting and not message.in_flight:
                self._end(message)

    def _end(self, message: Message) -> None:
        """All that was due has an outcome that counts."""
        if not message.all_settled():
            self._warn_or_wait(message)
            return
        if not message.reported:
            dues = self.bounces.at_end(message)
            if dues:
                message.waiting = 1  # for the reports
                self.bounces.start(message, b"B", dues)
                return
        try:
            self._ledger.finish(message)
        except OSError as error:
            self._log.alert(f"cannot finish {message.id.decode()}: {error.strerror}; trying again in {AGAIN_S} s")
            self._close(message, int(time.time()) + AGAIN_S)
            return
        self._log.end(message.id)
        self._forget(message)

    def _warn_or_wait(self, message: Message) -> None:
        """Some recipients wait for their next try; tell the sender if that is due."""
        warn_s = self._controls.number("delaywarning")
        if warn_s and not message.warned and message.started_s >= message.born_s + warn_s:
            dues = self.bounces.delayed(message)
            if dues:
                message.waiting = 1
                self.bounces.start(message, b"W", dues)
                return
        self._close(message, message.next_try_s())

    def _reported(self, message: Message, letter: bytes, ok: bool) -> None:
        """The reports of *message* are in the queue, or could not be put there."""
        message.waiting = 0
        if not ok:
            self._close(message, int(time.time()) + AGAIN_S)
            return
        message.reported = message.reported or letter == b"B"
        message.warned = message.warned or letter == b"W"
        self._ledger.note(message, Outcome(int(time.time()), 0, letter, 0, b""))

    def _close(self, message: Message, due_s: int) -> None:
        self._forget(message)
        self._backlog.defer(message.id, due_s)

    def _forget(self, message: Message) -> None:
        message.close()
        del self.open[message.id]
