"""Hops, however the header is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.header import HopCounter


def count(*pieces: bytes) -> int:
    counter = HopCounter()
    for piece in pieces:
        counter.feed(piece)
    return counter.count


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"", 0),
        (b"Received: x\nDelivered-To: y\nreceived-SPF: z\n\n", 3),
        (b"Subject: x\n Received: folded\nX-Received: y\n\n", 0),
        (b"Received: x\n\nReceived: body\nDelivered-To: body\n", 1),
        (b"\nReceived: body\n", 0),
        (b"RECEIVED: x\ndELIVERED-tO: y\nSubject: z\n", 2),
        (b"Receive: x\nDeliver: y\n\n", 0),
    ],
)
def test_count(message: bytes, want: int) -> None:
    """Lines of the header that begin with received or delivered count, in any case (qmail.md 15.6)."""
    assert count(message) == want
    assert count(*[message[at : at + 1] for at in range(len(message))]) == want


@given(
    st.lists(
        st.sampled_from([b"Received: a\n", b"deliver", b"ed", b"\n", b"x", b"\nRece", b"ived", b" \n"]), max_size=30
    )
)
def test_cuts_do_not_matter(pieces: list[bytes]) -> None:
    """A header in pieces has as many hops as the same header whole."""
    assert count(*pieces) == count(b"".join(pieces))
