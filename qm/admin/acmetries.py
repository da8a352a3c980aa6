"""run/acme: which certificates could not be had, how often in a row, and when last: `renew` asks seldom then.

It is only a memory: without it the server is asked again at once.
"""

import time
from typing import Final, NamedTuple

from qm.disk import atomic, layout

PATH: Final = "run/acme"
FIRST_S: Final = 3600  # after a first failure; doubled with each more
MOST_S: Final = 86400
_SIZE_MAX: Final = 1 << 20


class Try(NamedTuple):
    failures: int
    at_s: int  # of the clock

    def wait_s(self, now_s: float) -> float:
        """How long not to ask."""
        pause = min(FIRST_S << min(self.failures - 1, 10), MOST_S)
        return max(0.0, min(self.at_s + pause - now_s, pause))  # the clock may have been set back


def parse(text: str) -> dict[str, Try]:
    found = {}
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) == 3 and words[0].isdecimal() and words[1].isdecimal() and int(words[0]):
            found[words[2]] = Try(int(words[0]), int(words[1]))
    return found


def read() -> dict[str, Try]:
    """By the certificate's file."""
    try:
        with open(PATH, encoding="utf-8", errors="replace") as file:
            return parse(file.read(_SIZE_MAX))
    except OSError:
        return {}


def note(path: str, *, failed: bool) -> None:
    """Raises Temporary."""
    tries = read()
    before = tries.pop(path, None)
    if failed:
        tries[path] = Try(before.failures + 1 if before else 1, int(time.time()))
    elif before is None:
        return
    text = "".join([f"{entry.failures} {entry.at_s} {name}\n" for name, entry in tries.items()])
    atomic.replace(PATH, lambda file: file.write(text.encode()), mode=layout.mode(PATH))
