"""Mailboxes that userd has just said to exist: a busy domain's mail asks for the same ones again and again.

Only yes is remembered, and only for KNOWN_S, which is how late userd itself may follow a change.  A mailbox that goes
in that time gets a bounce, as it would had it gone right after RCPT.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

KNOWN_S: Final = 1.0
KNOWN_MAX: Final = 1000  # addresses; then all are forgotten


class Users(Protocol):
    def exists(self, address: bytes) -> tuple[bytes, bytes]: ...


class Known:
    def __init__(self, users: Users, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._clock = clock
        self._until_s: dict[bytes, float] = {}

    def exists(self, address: bytes) -> tuple[bytes, bytes]:
        """userd's verdict and text; raises what asking raises."""
        now_s = self._clock()
        if self._until_s.get(address, 0.0) > now_s:
            return b"yes", b""
        verdict, text = self._users.exists(address)
        if verdict == b"yes":
            if len(self._until_s) >= KNOWN_MAX:
                self._until_s.clear()
            self._until_s[address] = now_s + KNOWN_S
        return verdict, text
