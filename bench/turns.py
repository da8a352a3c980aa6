"""The longest turn of send's loop, in CPU ms, while it works through 10,000 recipients."""

import contextlib
import os
import tempfile
from collections.abc import Callable

from tests.harness.turns import KINDS, turns_s

RECIPIENTS = 10_000


def run(say: Callable[[str], None]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    log = os.dup(2)
    os.dup2(null, 2)  # a line for each delivery
    try:
        for kind in KINDS:
            for count in (1, 100):
                with tempfile.TemporaryDirectory(prefix="qm-bench-") as folder, contextlib.chdir(folder):
                    longest_ms = max(turns_s(kind, count, RECIPIENTS)) * 1000
                say(f"| {count} messages to {RECIPIENTS} in all, {kind}: longest turn, ms | {longest_ms:.1f} | | |")
    finally:
        os.dup2(log, 2)
