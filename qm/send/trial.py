"""One message's try, from opening its file to its end: done with, or back to the backlog.

Everything that must be remembered goes through the ledger, and only what it has written counts: a try ends in `flush`.
"""

import time
from typing import Final

from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.state import Outcome
from qm.send import ledger, logbook, policy, schedule
from qm.send.bounce import Bounces
from qm.send.chores import SLICE, Chore, Chores, Steps
from qm.send.ledger import Ledger
from qm.send.logbook import Logbook
from qm.send.message import FOUND, FRESH, NOW, Backlog, Clock, Message, Recipient
from qm.send.opening import AGAIN_S, Opener
from qm.send.schedule import LOCAL_SKIP, REMOTE_SKIP
from qm.unix import following
from qm.unix.loop import Loop
from qm.wire.delivery import Result

BAD_ADDRESS: Final = Result(b"D", b"This address has a line end in it. (#5.1.3)\n", b"5.1.3", b"")


class Trials:
    """The messages that are open, by ID."""

    def __init__(
        self, loop: Loop, controls: Controls, log: Logbook, backlog: Backlog, chores: Chores, clock: Clock = time.time
    ) -> None:
        self.open: dict[bytes, Message] = {}
        self._loop = loop
        self._controls = controls
        self._log = log
        self._backlog = backlog
        self._clock = clock
        self._opener = Opener(controls, log, backlog, clock)
        self._ledger = Ledger(loop)
        self.bounces = Bounces(loop, controls, log, chores, self._reported, clock)

    def reload(self) -> None:
        """Take the control files as they are now; raises BadRoute, with what was."""
        self._opener.reload()

    def recall(self, name: bytes) -> Chore:
        """Put a message of an earlier life into the backlog."""
        return self._opener.recall(name)

    def start(self, name: bytes, due_s: int, now_s: int) -> Steps[tuple[Message, list[Recipient]] | None]:
        """Open a message; with it the recipients that this try is for, or None if the try has ended already."""
        message = self._opener.open(name, due_s, now_s)
        if message is None:
            return None
        self.open[name] = message
        try:
            yield from self._opener.learn(message)
        except OSError as error:
            self._forget(message)
            self._opener.trouble(name, error)
            return None
        if due_s in (FRESH, FOUND):
            self._log.info(message)
            if not message.file.envelope.client:  # it was handed in by a process here, which may have stayed
                message.follower = following.follower(message.file.envelope.uid, message.file.envelope.pid)
        due = yield from self._due(message, everybody=due_s in (FRESH, FOUND, NOW))
        return (message, due) if due else None

    def _due(self, message: Message, *, everybody: bool) -> Steps[list[Recipient]]:
        """The recipients that this try is for; if there are none, the try ends here."""
        message.dying = policy.is_dying(message.born_s, message.started_s, self._controls.number("queuelifetime"))
        everybody = everybody or message.dying
        due = [r for r in message.recipients if not r.settled and (everybody or r.next_s <= message.started_s)]
        message.waiting = len(due)
        if not due:
            self._end(message)
        good = [r for r in due if b"\n" not in r.address]
        if len(good) < len(due):
            yield from self.settle_all(message, [r for r in due if b"\n" in r.address], BAD_ADDRESS)
        return good

    def put_aside(self, message: Message, error: Corrupt) -> None:
        """The message turned out damaged, and nobody is at work with it."""
        self._forget(message)
        self._opener.unreadable(message.id, error)

    def settle_all(self, message: Message, recipients: list[Recipient], result: Result) -> Chore:
        for count, recipient in enumerate(recipients, 1):
            self.settle(message, recipient, result)
            if not count % SLICE:
                yield

    def settle(self, message: Message, recipient: Recipient, result: Result) -> Outcome:
        """A recipient's outcome of this try."""
        letter, text, next_s = result.letter, result.text, 0
        if letter == b"Z" and message.dying:
            letter, text = b"D", policy.final_text(text)
        if letter == b"Z":
            skip = LOCAL_SKIP if recipient.is_local else REMOTE_SKIP
            next_s = schedule.next_try_s(message.born_s, message.started_s, skip)
        relayed = result.dsn and letter == b"K"
        said = (text, result.status, result.mta, result.diagnostic, relayed)
        outcome = Outcome(int(self._clock()), recipient.index, letter, next_s, *said)
        recipient.learn(outcome)
        message.waiting -= 1
        self._ledger.note(message, outcome)
        if message.follower:
            following.tell(message.follower, logbook.words(recipient, outcome))
        return outcome

    def flush(self, limit_s: float = ledger.TURN_S) -> None:
        """Write what has happened, for about *limit_s*; end the tries that are over."""
        for message in self._ledger.flush(limit_s):
            if not message.waiting and not message.in_flight:
                self._end(message)

    def _end(self, message: Message) -> None:
        """All that was due has an outcome that counts."""
        if not message.all_settled():
            if message.damage is not None:
                self.put_aside(message, message.damage)
            else:
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
            # it stays open: that all have got it may be written nowhere else
            self._log.alert(
                f"cannot finish {message.id.decode()}: {error.strerror}; trying again in {ledger.AGAIN_S:.0f} s"
            )
            self._loop.after(ledger.AGAIN_S, lambda: self._end(message))
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
            self._close(message, int(self._clock()) + AGAIN_S)
            return
        message.reported = message.reported or letter == b"B"
        message.warned = message.warned or letter == b"W"
        self._ledger.note(message, Outcome(int(self._clock()), 0, letter, 0, b""))

    def _close(self, message: Message, due_s: int) -> None:
        self._forget(message)
        self._backlog.defer(message.id, due_s)

    def _forget(self, message: Message) -> None:
        if message.follower:
            following.tell(message.follower, following.END)
        message.close()
        del self.open[message.id]
