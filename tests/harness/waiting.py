"""The one place where a test may wait for what it cannot be told."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
LIMIT_S: Final = 15.0  # far above what is waited for; only a failure takes so long
PAUSE_S: Final = 0.01


def wait_for(predicate: Callable[[], T], what: str = "", limit_s: float = LIMIT_S) -> T:
    """The first true value of *predicate*; fails, saying *what* was waited for, after *limit_s*."""
    deadline_s = time.monotonic() + limit_s
    while not (value := predicate()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {limit_s:g} s: {what or predicate}")
        time.sleep(PAUSE_S)
    return value
