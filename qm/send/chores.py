"""What would take longer than a turn of the loop may: generators, run a slice at a time, one after another.

A slice is what lies between two yields; whoever writes a chore keeps it short.  So a message with 100,000 recipients
holds up nobody while it is opened, failed or reported.
"""

import time
from collections import deque
from collections.abc import Generator
from typing import Final, TypeVar

SLICE: Final = 500  # recipients, or lines of memory, between two yields: some 4 ms
TURN_S: Final = 0.008  # of slices in one turn of the loop

T = TypeVar("T")
Steps = Generator[None, None, T]  # slices, and what comes of them
Chore = Steps[None]


class Chores:
    def __init__(self) -> None:
        self._waiting: deque[Chore] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, chore: Chore) -> None:
        """Do the first slice at once, which mostly is all; the rest in later turns."""
        for _ in chore:
            self._waiting.append(chore)
            return

    def turn(self) -> bool:
        """Some slices; whether there is more to do at once."""
        until_s = time.monotonic() + TURN_S
        while self._waiting and time.monotonic() < until_s:
            self.begin(self._waiting.popleft())
        return bool(self._waiting)
