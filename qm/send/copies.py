"""Large messages on their way to a handout: one at a time, a piece in each turn, and few at once on the disk."""

from collections import deque
from collections.abc import Callable
from typing import Final

from qm.disk.queuefile import Corrupt
from qm.send.handout import Handout
from qm.send.message import Message, Recipient

LARGE_MAX: Final = 20  # copies of large messages at once

Copied = Callable[[Message, list[Recipient]], None]
Failed = Callable[[Message, list[Recipient], Corrupt | OSError], None]


class Copies:
    """*copied* is called for each message whose handout is whole, *failed* for one that could not be copied."""

    def __init__(self, copied: Copied, failed: Failed) -> None:
        self._copied = copied
        self._failed = failed
        self._waiting: deque[tuple[Message, list[Recipient]]] = deque()
        self._alive: list[Message] = []

    def add(self, message: Message, due: list[Recipient]) -> None:
        self._waiting.append((message, due))

    def turn(self) -> bool:
        """Copy one piece; whether there is more to do at once."""
        self._alive = [m for m in self._alive if m.handout is not None]
        if not self._waiting or len(self._alive) >= LARGE_MAX:
            return False
        message, due = self._waiting[0]
        try:
            if message.handout is None:
                message.handout = Handout(message.fd, message.file)
            if not message.handout.step():
                return True
        except (Corrupt, OSError) as error:
            self._waiting.popleft()
            self._failed(message, due, error)
            return True
        self._waiting.popleft()
        self._alive.append(message)
        self._copied(message, due)
        return True
