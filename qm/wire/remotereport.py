"""What the command qm-remote prints, and what rspawn makes of such output (qmail.md 14.6, section 11).

NUL-terminated reports, each a letter and a text: ``r`` accepted, ``s`` temporary, ``h`` permanent for each recipient
in order, then one of ``K``, ``Z``, ``D`` for the message.  A failure before any recipient was tried is that last alone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.wire.delivery import Result

_OF_RECIPIENT: Final = {b"K": b"r", b"Z": b"s", b"D": b"h"}
_RANK: Final = {b"K": 1, b"Z": 0, b"D": -1}
_LETTER: Final = {rank: letter for letter, rank in _RANK.items()}
_FORCED: Final = {b"s": 0, b"h": -1}


def print_out(results: Sequence[Result]) -> bytes:
    """The reports that say *results*, at least one."""
    if len({(result.letter, result.text) for result in results}) == 1:
        only = results[0]
        return (b"r\0" * len(results) if only.letter == b"K" else b"") + only.letter + only.text + b"\0"
    texts = [_OF_RECIPIENT[r.letter] + (b"" if r.letter == b"K" else r.text) for r in results]
    end = next((b"K" + r.text for r in results if r.letter == b"K"), b"DNo recipient was accepted.\n")
    return b"\0".join([*texts, end]) + b"\0"


class _Report(NamedTuple):
    letter: bytes
    text: bytes


def read_in(output: bytes, count: int) -> list[Result]:
    """A result for each of *count* recipients; what has no sense is a permanent failure, as qmail's rspawn has it."""
    reports = [_Report(piece[:1], piece[1:]) for piece in output.split(b"\0")[:-1]]
    if not reports:
        text = b"The program that delivers to other hosts said nothing. (#4.3.0)\n"
        return [Result(b"Z", text, b"4.3.0")] * count
    end = next((report for report in reports if report.letter in _RANK), _Report(b"D", b""))
    return [_merge(reports[place] if place < len(reports) else end, end) for place in range(count)]


def _merge(first: _Report, end: _Report) -> Result:
    of_message = _RANK[end.letter]
    overall = _FORCED.get(first.letter, of_message)
    text = first.text
    if first is not end and of_message <= overall:
        text += end.text
    return Result(_LETTER[overall], text)
