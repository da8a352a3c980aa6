"""Held messages whose time in the queue is over: they fail for all recipients, and the sender hears of it.

What `qm import` has found on hold waits for the administrator alone.

What has become of them is written to their state file first, durably, and then they move to cur/, where they are like
any message whose recipients are settled.  A crash in between leaves a state without a message, which the next start
removes, and the message held: it is given up then.
"""

import os
import time
from collections.abc import Callable
from typing import Final

from qm.disk import held, queue, state
from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.state import Outcome
from qm.send import policy
from qm.send.chores import Chore, Chores
from qm.send.logbook import Logbook
from qm.send.message import NOW, Clock
from qm.unix.loop import Loop
from qm.wire import queueid
from qm.wire.envelope import Envelope

LOOK_S: Final = 600.0  # between two looks into held/, at most
TEXT: Final = b"The message was held: its sender had sent more than allowed. (#5.7.1)\n"


def remember(name: bytes, envelope: Envelope, now_s: int) -> None:
    text = policy.final_text(TEXT)
    outcomes = [Outcome(now_s, index, b"D", 0, text, b"5.7.1") for index in range(len(envelope.recipients))]
    fd = os.open(queue.STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state.append(os.fsencode(queue.STATE) + b"/" + name, fd, outcomes, durable=True)
    finally:
        os.close(fd)


def move(name: bytes, envelope: Envelope, now_s: int) -> None:
    os.rename(os.fsencode(queue.HELD) + b"/" + name, os.fsencode(queue.CUR) + b"/" + name)


def sync(name: bytes, envelope: Envelope, now_s: int) -> None:
    queue.sync_directory(queue.CUR)
    queue.sync_directory(queue.HELD)


STEPS: Final[tuple[Callable[[bytes, Envelope, int], None], ...]] = (remember, move, sync)


class Expiry:
    """*arrived* is called with the ID of each message that is in cur/ now, to be finished, and NOW."""

    def __init__(
        self, loop: Loop, controls: Controls, log: Logbook, chores: Chores, arrived: Callable[[bytes, int], None],
        clock: Clock = time.time,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._controls = controls
        self._log = log
        self._chores = chores
        self._arrived = arrived
        self._clock = clock
        loop.after(0.0, self._look)

    def _look(self) -> None:
        self._chores.begin(self.expire())

    def expire(self) -> Chore:
        """Give up what has been held for too long, one message in each slice."""
        now_s = int(self._clock())
        lifetime_s = self._controls.number("queuelifetime")
        wait_s = LOOK_S
        for name in self._ids():
            born_s = queueid.time_ns(name) // 1_000_000_000
            if not policy.is_dying(born_s, now_s, lifetime_s):
                wait_s = min(wait_s, born_s + lifetime_s + 1 - now_s)  # the others are younger
                break
            self._give_up(name, now_s)
            yield
        self._loop.after(wait_s, self._look)

    def _ids(self) -> list[bytes]:
        try:
            return held.ids()
        except OSError as error:
            self._log.alert(f"cannot read {queue.HELD}: {error.strerror}")
            return []

    def _give_up(self, name: bytes, now_s: int) -> None:
        try:
            envelope = held.envelope(name)
            if envelope is None or envelope.held == held.IMPORTED:
                return
            for step in STEPS:
                step(name, envelope, now_s)
        except Corrupt as error:
            self._set_aside(name, error)
            return
        except OSError as error:
            self._undo(name)
            if not isinstance(error, FileNotFoundError):  # released just now
                self._log.alert(f"cannot give up {name.decode()}, which is held: {error.strerror}; trying again")
            return
        self._arrived(name, NOW)

    @staticmethod
    def _undo(name: bytes) -> None:
        """A message that is released after all has no past."""
        if not os.path.lexists(os.fsencode(queue.CUR) + b"/" + name):
            try:
                os.unlink(os.fsencode(queue.STATE) + b"/" + name)
            except OSError:
                pass  # litter, which the next start removes

    def _set_aside(self, name: bytes, error: Corrupt) -> None:
        try:
            queue.set_aside(queue.HELD, name)
        except OSError as failure:
            self._log.alert(f"cannot put {name.decode()} aside: {failure.strerror}")
            return
        self._log.alert(f"{name.decode()} is damaged ({error}); kept in {queue.BAD}, not delivered")
