"""Whom vacation has answered lately: a file of lines ``TIME SENDER``, rewritten as a whole, so it stays small.

When it is full of recent ones nobody more is answered: that is a flood, and no place to answer from.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from qm.disk import atomic, lock
from qm.errors import Temporary

PATH: Final = ".vacation.answered"
LOCK: Final = ".vacation.lock"
SENDERS_MAX: Final = 1000
_SIZE_MAX: Final = 4 * 1024 * 1024  # bytes; SENDERS_MAX of the longest addresses


class Memory:
    """Senders and when they were answered; use it while `held`."""

    def __init__(self, now_s: int, interval_s: int) -> None:
        """Forgets what is older than *interval_s*, or from the future.  Raises Temporary."""
        self._now_s = now_s
        self._answered = {sender: time_s for sender, time_s in _read() if now_s - interval_s < time_s <= now_s}

    def may_answer(self, sender: bytes) -> bool:
        return sender.lower() not in self._answered and len(self._answered) < SENDERS_MAX

    def answered(self, sender: bytes) -> None:
        """It is written when this returns; raises Temporary."""
        self._answered[sender.lower()] = self._now_s
        lines = b"".join(b"%d %b\n" % (time_s, known) for known, time_s in self._answered.items())
        atomic.replace(PATH, lambda file: file.write(lines), mode=0o600)


def _read() -> Iterator[tuple[bytes, int]]:
    try:
        with open(PATH, "rb") as file:
            text = file.read(_SIZE_MAX)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Temporary("cannot read whom vacation has answered", detail=f"{PATH}: {error.strerror}") from error
    for line in text.splitlines():
        time_s, _, sender = line.partition(b" ")
        if time_s.isdigit() and len(time_s) < 15 and sender:
            yield sender, int(time_s)


@contextmanager
def held(now_s: int, interval_s: int) -> Iterator[Memory]:
    """The memory, while no other delivery can use it; raises Temporary."""
    umask = os.umask(0o077)
    try:
        with lock.held(LOCK):
            yield Memory(now_s, interval_s)
    finally:
        os.umask(umask)
