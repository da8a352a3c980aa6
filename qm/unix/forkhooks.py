"""Imports that do not make every later fork dearer.

threading and logging register work to be done in each forked child, for locks that other threads may have held.  We
fork from processes of one thread, which hold none, and that work costs a child 0.5 MB of copied pages and half a
millisecond: as much as all else that a fork costs.  So who is about to fork workers imports what brings these modules
along (dnspython, setproctitle) in here.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_NEEDLESS: Final = frozenset(("logging", "threading"))


@contextmanager
def spared() -> Iterator[None]:
    """Within, the needless hooks are not registered; other modules' are."""
    register = os.register_at_fork

    def choosy(**hooks: Callable[[], object]) -> None:
        if sys._getframe(1).f_globals.get("__name__") not in _NEEDLESS:
            register(**hooks)

    os.register_at_fork = choosy  # type: ignore[assignment]
    try:
        yield
    finally:
        os.register_at_fork = register
