"""The limited SMTP of the listed."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qm.rblsmtpd.protocol import LINE_MAX, Refuser

NO = b"451 listed"
TALK = b"EHLO x\r\nmail from:<a@b>\nRCPT TO:<c>\r\nDATA\r\n\r\nhelo\r\nNOOPS\r\nrset \r\nQUIT\r\nNOOP\r\n"
FINE = b"250 rblsmtpd.local\r\n"
ANSWERS = (
    b"220 rblsmtpd.local\r\n" + FINE * 2 + (NO + b"\r\n") * 3 + FINE + NO + b"\r\n" + FINE + b"221 rblsmtpd.local\r\n"
)


def _say(pieces: Sequence[bytes]) -> bytes:
    refuser = Refuser(NO)
    said = refuser.outgoing()
    for piece in pieces:
        refuser.receive(piece)
        said += refuser.outgoing()
    return said


def test_the_answers() -> None:
    """Greeting, 250 to what leads to nothing, the message to the rest, 221; nothing after QUIT."""
    assert _say([TALK]) == ANSWERS
    assert _say([TALK[i : i + 1] for i in range(len(TALK))]) == ANSWERS


@given(st.lists(st.integers(0, len(TALK)), max_size=8))
def test_cuts(cuts: list[int]) -> None:
    """However the talk is cut, the answers are the same."""
    places = [0, *sorted(cuts), len(TALK)]
    assert _say([TALK[a:b] for a, b in pairwise(places)]) == ANSWERS


def test_a_line_without_end() -> None:
    """Of an endless line no more than LINE_MAX bytes are kept, and it has one answer when it ends."""
    refuser = Refuser(NO)
    refuser.outgoing()
    for _ in range(100):
        refuser.receive(b"x" * 10_000)
        assert len(refuser._line) <= LINE_MAX
    refuser.receive(b"\nNOOP\n")
    assert refuser.outgoing() == NO + b"\r\n" + FINE


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Any bytes have one answer a line."""
    refuser = Refuser(NO)
    for piece in pieces:
        refuser.receive(piece)
    lines = b"".join(pieces).count(b"\n")
    answers = refuser.outgoing().count(b"\r\n") - 1
    assert answers == lines or (refuser.done and answers < lines + 1)
