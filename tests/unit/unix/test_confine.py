"""What a process gives up for good."""

import os
from pathlib import Path

from qm.unix import confine


def test_nothing_is_gained_any_more_by_us_and_our_children() -> None:
    """After gain_nothing the kernel says so of this process, and of what it forks."""
    pid = os.fork()
    if pid == 0:
        try:
            confine.gain_nothing()
            grandchild = os.fork()
            gains = "NoNewPrivs:\t1\n" not in Path("/proc/self/status").read_text()
            os._exit(gains or (os.waitpid(grandchild, 0)[1] if grandchild else 0))
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
