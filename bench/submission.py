"""A script that calls sendmail again and again: how long a call takes until the message is queued.

Postfix's sendmail takes it into maildrop, where pickup finds it later; ours is in the queue proper when it returns.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping

from bench import peers
from bench.road import median
from tests.harness.suite import BIN, DOMAIN

_MESSAGE = f"To: ann@{DOMAIN}\nSubject: hello\n\n".encode() + b"a line of some length, as people write it\n" * 20


def _calls(argv: list[str], env: Mapping[str, str], count: int) -> tuple[float, float]:
    """Calls one after another: a second, and CPU ms of ours and the kernel's for each."""
    before, began_s = os.times(), time.monotonic()
    for _ in range(count):
        subprocess.run(argv, input=_MESSAGE, env=env, check=True)
    took_s, after = time.monotonic() - began_s, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return count / took_s, cpu_s / count * 1000


def run(rounds: int, count: int, say: Callable[[str], None]) -> None:
    with peers.qm() as (suite, _), peers.postfix() as theirs:
        config = theirs.queue[0].parent.parent / "config"
        commands = {
            "qm": ([str(BIN / "sendmail"), "-t"], {**suite.env, "USER": "ann"}),
            "postfix": (["/usr/sbin/sendmail", "-C", str(config), "-t"], {"PATH": "/usr/sbin:/usr/bin:/bin"}),
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for argv, env in commands.values():
            _calls(argv, env, 20)  # warm
        for _ in range(rounds):
            for name, (argv, env) in commands.items():
                seen[name].append(_calls(argv, env, count))
        ratios = [a[0] / b[0] for a, b in zip(seen["qm"], seen["postfix"], strict=True)]
        a, b = (median([figures[0] for figures in seen[name]]) for name in commands)
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        say(f"| {count} calls of sendmail -t: calls/s | {a:.1f} | {b:.1f} | {spread} |")
        a, b = (median([figures[1] for figures in seen[name]]) for name in commands)
        say(f"| sendmail -t: CPU, ms a call | {a:.1f} | {b:.1f} | {a / b:.2f} |")
