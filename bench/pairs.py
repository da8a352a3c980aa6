"""One piece of work by ours and by a peer, in turns: the rows that compare them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.peers import Peer
from bench.road import median


class Figures(NamedTuple):
    per_s: float
    cpu_ms: float  # of each piece, of the whole tree


def compare(ours: Peer, theirs: Peer, rounds: int, label: str, once: Callable[[Peer], Figures]) -> Iterator[str]:
    """The rows of *rounds* measurements, alternating; *label* ends with what is counted."""
    pairs = [(once(ours), once(theirs)) for _ in range(rounds)]
    for what, index in ((f"{label}/s", 0), (f"{label.rpartition(':')[0]}: CPU, ms each", 1)):
        ratios = [a[index] / b[index] for a, b in pairs]
        a, b = (median([pair[side][index] for pair in pairs]) for side in (0, 1))
        yield f"| {what} | {a:.2f} | {b:.2f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
