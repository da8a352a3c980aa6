"""The memory of a message: what happened to its recipients, written before it counts.

A success or failure of a message with several recipients is durable in queue/state before send acts on it.  A
message whose recipients all succeeded at its first try needs no memory: its file is unlinked and that is all.
Nothing is ever forgotten because a disk is full: what cannot be written stays here, holds the message, and is tried
again.
"""

import fcntl
import os
import time
from collections.abc import Callable
from typing import Final

from qm.disk import queue, state
from qm.disk.state import Outcome
from qm.send.message import Message
from qm.unix import log
from qm.unix.loop import Loop

NAME: Final = b"qm-send"
AGAIN_S: Final = 10.0  # between two tries to write what could not be written
TURN_S: Final = 0.005  # of writing in one turn of the loop


def _path(directory: str, name: bytes) -> bytes:
    return os.fsencode(directory) + b"/" + name


class Ledger:
    """Outcomes of this turn of the loop, by message; `flush` writes them all."""

    def __init__(self, loop: Loop) -> None:
        """Raises OSError if the queue is not there, or another send has it."""
        self._loop = loop
        self._dirty: dict[Message, None] = {}
        self._state_fd = os.open(queue.STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._cur_fd = os.open(queue.CUR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._cur_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._alerted = False

    def note(self, message: Message, outcome: Outcome) -> None:
        message.unsaved.append(outcome)
        self._dirty[message] = None

    def flush(self, limit_s: float = TURN_S) -> list[Message]:
        """Write what was noted, for about *limit_s*; the messages whose outcomes now count."""
        until_s = time.monotonic() + limit_s
        written: list[Message] = []
        failed: list[Message] = []
        for message in self._dirty:
            (written if self._needless(message) or self._save(message) else failed).append(message)
            if time.monotonic() > until_s:
                break
        for message in (*written, *failed):
            del self._dirty[message]
        if self._dirty:
            self._loop.after(0.0, self._soon)
        if failed:
            self._dirty.update(dict.fromkeys(failed))  # after the others
            self._loop.after(AGAIN_S, self._soon)
        return written

    def _soon(self) -> None:
        """A timer whose only effect is another turn of the loop, which flushes."""

    @staticmethod
    def _needless(message: Message) -> bool:
        """Whether everybody has got it and nothing was ever remembered of it: then its end is its memory.

        Not so where a report of success may be due: more can then fail between the deliveries and the end.
        """
        if message.has_state or not all(o.letter == b"K" for o in message.unsaved):
            return False
        if any(wanted.notify for wanted in message.file.envelope.recipients):
            return False
        return all(r.letter == b"K" for r in message.recipients)

    def _save(self, message: Message) -> bool:
        durable = any(o.letter != b"Z" for o in message.unsaved)
        try:
            path = _path(queue.STATE, message.id)
            state.append(path, self._state_fd, message.unsaved, durable=durable, named=message.is_named)
        except OSError as error:
            if not self._alerted:
                log.alert(NAME, f"cannot write {queue.STATE}/{message.id.decode()}: {error.strerror}; trying again")
                self._alerted = True
            return False
        self._alerted = False
        message.has_state = True
        message.is_named = message.is_named or durable
        message.unsaved.clear()
        return True

    def finish(self, message: Message) -> None:
        """Forget a message that is done with; raises OSError, with nothing lost, and may be called again."""
        for step in FINISH if message.has_state else FINISH[:1]:
            step(self, message.id)

    def unlink_message(self, name: bytes) -> None:
        try:
            os.unlink(_path(queue.CUR, name))
        except FileNotFoundError:
            pass  # an earlier call came this far

    def sync_cur(self, _: bytes) -> None:
        os.fsync(self._cur_fd)

    def unlink_state(self, name: bytes) -> None:
        os.unlink(_path(queue.STATE, name))


# The message goes before its memory: a state without a message is litter, which the next start removes; a message
# without its state would be delivered again.  Without a state there is one step, and a repetition is seen by local.
FINISH: Final[tuple[Callable[[Ledger, bytes], None], ...]] = (
    Ledger.unlink_message,
    Ledger.sync_cur,
    Ledger.unlink_state,
)
