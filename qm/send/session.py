"""send's loop: what wakes it, and one turn: remember, open, give out, say.

A turn takes some 30 ms at most: whatever may be long is bounded by time (OPEN_S, ledger.TURN_S) or is a chore.
"""

import time
from collections import deque
from typing import Final

from qm.disk.control import Controls
from qm.send import intake, ledger
from qm.send.chores import Chore, Chores
from qm.send.deliveries import Deliveries
from qm.send.logbook import Logbook
from qm.send.message import NOW, Backlog, Clock, Message
from qm.send.schedule import Turns
from qm.send.spawners import LIMIT_MAX, Spawner
from qm.send.trial import Trials
from qm.unix.loop import Loop
from qm.wire import route, smtproute

CONTROLS: Final = (
    *route.CONTROLS, "bouncefrom", "bouncehost", "bouncemaxbytes", "concurrencylocal", "concurrencyremote",
    "delaywarning", "doublebouncehost", "doublebounceto", "maxrcptperdelivery", "queuelifetime", *smtproute.CONTROLS,
)  # fmt: skip
OPEN_MAX: Final = 2000  # messages that are open at once, a descriptor each; the rest waits in the backlog
OPEN_S: Final = 0.006  # of opening messages in one turn
STOP_S: Final = 5.0  # of remembering at the end
TIDY_S: Final = 60.0


class Sender:
    def __init__(
        self, loop: Loop, controls: Controls, log: Logbook, local_fd: int, remote_fd: int, clock: Clock = time.time
    ) -> None:
        """Raises OSError if the queue is not there."""
        self._loop = loop
        self._controls = controls
        self._log = log
        self._clock = clock
        self._backlog = Backlog()
        self._chores = Chores()
        self._trials = Trials(loop, controls, log, self._backlog, self._chores, clock)
        self._stopping = False
        self.failed = False
        local: Turns[Message] = Turns(self._limit("concurrencylocal"), adapts=False)
        remote: Turns[Message] = Turns(self._limit("concurrencyremote"), adapts=True)
        self._deliveries = Deliveries(loop, controls, log, self._trials, self._chores, local, remote)
        self._local = Spawner(b"qm-lspawn", local_fd, local, loop, self._deliveries.landed, self._lost)
        self._remote = Spawner(b"qm-rspawn", remote_fd, remote, loop, self._deliveries.landed, self._lost)
        self._left_over = deque(intake.left_over())
        self._intake = intake.Intake(loop, self._arrived)
        self._wakeup = loop.after(0.0, self._wake)
        self._wakes_s: int | None = None  # when the wakeup is due, of the clock
        self._chores.begin(self._recall())
        loop.before_wait.append(self._turn)
        loop.after(TIDY_S, self._tidy)

    def _limit(self, name: str) -> int:
        return min(self._controls.number(name), LIMIT_MAX)

    # what wakes us

    def _arrived(self, name: bytes, kind: int) -> None:
        self._log.new(name)
        self._backlog.add_fresh(name, kind)

    def _recall(self) -> Chore:
        """Put messages of an earlier life into the backlog, due when their state says."""
        while self._left_over:
            yield from self._trials.recall(self._left_over.popleft())
            yield

    def all_due(self) -> None:
        """SIGALRM: try everything now, whatever is known of its destinations, and what nobody has announced."""
        self._intake.scan()
        while self._left_over:
            self._backlog.defer(self._left_over.popleft(), NOW)
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
            spawner.turns.set_limit(self._limit(name) if spawner.alive else 0)

    def stop(self) -> None:
        """SIGTERM: start nothing any more; end once nothing is in flight (qmail.md 7.3)."""
        self._stopping = True
        self._intake.stop()

    def close(self) -> None:
        """Let the spawners and workers go."""
        self._local.close()
        self._remote.close()
        self._trials.bounces.close()
        self._log.exiting()
        self._log.flush()

    def _lost(self, name: bytes) -> None:
        self.failed = True
        self.stop()

    def _tidy(self) -> None:
        self._remote.turns.expire(self._loop.now_s())
        self._wakes_s = None  # the clock may have been set
        self._loop.after(TIDY_S, self._tidy)

    # one turn

    def _turn(self) -> None:
        """Before each wait."""
        self._trials.flush(STOP_S if self._stopping else ledger.TURN_S)
        if not self._stopping:
            self._open_some()
        more = self._chores.turn()
        if not self._stopping:
            more = self._deliveries.turn() or more
            self._deliveries.give_out(self._local)
            self._deliveries.give_out(self._remote)
            self._trials.flush()  # what ended without a delivery
            self._sleep_until_due()
        elif not (self._local.turns.busy or self._remote.turns.busy or self._trials.bounces.busy):
            self._loop.stop()
        if more:
            self._loop.after(0.0, self._soon)
        self._log.status(self._local.turns, self._remote.turns, self._stopping)
        self._log.flush()

    def _soon(self) -> None:
        """A timer whose only effect is another turn."""

    def _sleep_until_due(self) -> None:
        due_s = self._backlog.next_due_s() if len(self._trials.open) < OPEN_MAX else None
        if due_s == self._wakes_s:
            return  # a new timer in each turn would pile up
        self._wakeup.cancel()
        self._wakes_s = due_s
        if due_s is not None:
            self._wakeup = self._loop.after(max(0.0, due_s - self._clock()), self._wake)

    def _wake(self) -> None:
        self._wakes_s = None

    def _open_some(self) -> None:
        now_s = int(self._clock())
        until_s = time.monotonic() + OPEN_S
        while len(self._trials.open) < OPEN_MAX:
            if time.monotonic() >= until_s:
                self._loop.after(0.0, self._soon)
                return
            found = self._backlog.next(now_s)
            if found is None:
                return
            self._chores.begin(self._try(*found, now_s))

    def _try(self, name: bytes, due_s: int, now_s: int) -> Chore:
        started = yield from self._trials.start(name, due_s, now_s)
        if started is not None:
            yield from self._deliveries.add(*started)
