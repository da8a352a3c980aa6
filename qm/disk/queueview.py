"""The queue as it is, for people who ask: nothing is changed, and its programs work on meanwhile.

So a message may move or go between two looks: one that is nowhere any more is None, and no error.
"""

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.disk import held, queue, queuefile, state
from qm.disk.regular import open_regular
from qm.disk.state import Outcome
from qm.errors import Temporary
from qm.wire import queueid
from qm.wire.envelope import Envelope

HEADER_MAX: Final = 65536  # bytes that are shown


class View(NamedTuple):
    """One message; *history* is what has happened to it, oldest first."""

    id: bytes
    folder: str  # queue.NEW: send has not taken it up; queue.CUR; queue.HELD; queue.BAD: damaged
    size: int  # bytes of the message
    envelope: Envelope
    history: Sequence[Outcome]

    @property
    def born_s(self) -> int:
        return self.envelope.born_ns // 1_000_000_000

    def latest(self) -> list[Outcome | None]:
        """Of each recipient, its latest outcome; None before the first."""
        found: list[Outcome | None] = [None] * len(self.envelope.recipients)
        for outcome in self.history:
            if outcome.letter in (b"K", b"Z", b"D") and outcome.recipient < len(found):
                found[outcome.recipient] = outcome
        return found

    def has(self, letter: bytes) -> bool:
        """Whether its history has a ``B`` or a ``W``."""
        return any(outcome.letter == letter for outcome in self.history)


def ids(folder: str) -> list[bytes]:
    """The IDs in *folder*, oldest first; raises Temporary."""
    try:
        return sorted(filter(queueid.valid, os.listdir(os.fsencode(folder))))
    except OSError as error:
        raise Temporary("cannot read the queue", detail=f"{folder}: {error.strerror}") from error


def all_ids() -> list[bytes]:
    """Of every message that waits; raises Temporary."""
    found = {*held_ids(), *ids(queue.NEW)}  # before cur/, or one that is moved meanwhile would be in neither
    return sorted(found.union(ids(queue.CUR)))


def held_ids() -> list[bytes]:
    """Of those among them that are held; raises Temporary."""
    try:
        return held.ids()
    except OSError as error:
        raise Temporary("cannot read the queue", detail=f"{queue.HELD}: {error.strerror}") from error


def look(name: bytes, folders: Sequence[str] = (queue.HELD, queue.NEW, queue.CUR)) -> View | None:
    """The message *name*, in the first of *folders* that has it; raises OSError, Corrupt."""
    for folder in folders:
        try:
            fd = open_regular(os.path.join(os.fsencode(folder), name))
        except FileNotFoundError:
            continue
        try:
            file = queuefile.read(fd)
        finally:
            os.close(fd)
        history = list(state.read(os.path.join(os.fsencode(queue.STATE), name)))
        return View(name, folder, file.message_length, file.envelope, history)
    return None


def header(name: bytes, folder: str) -> bytes:
    """The header of the message *name*, HEADER_MAX bytes of it at most; raises OSError, Corrupt."""
    fd = open_regular(os.path.join(os.fsencode(folder), name))
    try:
        length = queuefile.read(fd).message_length
        return os.pread(fd, min(length, HEADER_MAX), 0).partition(b"\n\n")[0]
    finally:
        os.close(fd)


def is_served() -> bool:
    """Whether somebody reads the trigger: send works."""
    try:
        os.close(os.open(queue.TRIGGER, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False  # ENXIO: nobody
    return True
