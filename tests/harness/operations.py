"""What work costs, counted and not timed: a busy machine changes no count.

The count is of lines of Python; what one call of re or of bytes does is not in it.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(action: Callable[[], object]) -> int:
    """How many lines of Python *action* runs, in all functions that it calls; loops count with each turn."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def is_linear(work: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether ten times the *size* costs at most eleven times the lines; *work* prepares the work of a size."""
    small, large = (lines_run(work(size * factor)) for factor in (1, 10))
    return large <= 11 * small
