"""The client's reader of SMTP replies: whole, cut, and hostile."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.replies import KEEP_MAX, LINE_MAX, REPLY_MAX, BadReply, Replies, Reply
from tests.harness.suite import ROOT

CORPUS = sorted((ROOT / "tests" / "corpus" / "smtpreply").glob("*.in"))
PIECES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250-",
        b"250-PIPELINING\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"550",
        b" ",
        b"-",
        b"2",
        b"5.1.1",
    ]
)
WIRE = st.one_of(st.lists(PIECES, max_size=20).map(b"".join), st.binary(max_size=40))


def read(pieces: list[bytes]) -> list[Reply | str]:
    """All replies, and at the end why there are no more, if it is a mistake."""
    replies, found = Replies(), list[Reply | str]()
    try:
        for piece in pieces:
            replies.receive(piece)
            while (reply := replies.next()) is not None:
                found.append(reply)
    except BadReply as error:
        found.append(str(error))
    return found


def cut(wire: bytes, rng: random.Random) -> list[bytes]:
    marks = sorted(rng.randint(0, len(wire)) for _ in range(5))
    return [wire[a:b] for a, b in zip([0, *marks], [*marks, len(wire)], strict=True)]


def shown(found: Reply | str) -> str:
    if isinstance(found, str):
        return f"bad: {found}"
    return f"{found.code} {found.status().decode()} {found.one_line().decode()}"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """Each file of the corpus gives the replies that it should, whole and byte by byte."""
    wire = path.read_bytes()
    want = path.with_suffix(".want").read_text().splitlines()
    assert [shown(found) for found in read([wire])] == want
    assert [shown(found) for found in read([wire[at : at + 1] for at in range(len(wire))])] == want


@given(WIRE, st.randoms(use_true_random=False))
def test_any_bytes_however_cut(wire: bytes, rng: random.Random) -> None:
    """Any bytes give replies or BadReply, the same ones however they are cut."""
    whole = read([wire])
    assert read(cut(wire, rng)) == whole
    assert read([bytes([byte]) for byte in wire]) == whole


@given(WIRE)
def test_what_is_shown_is_printable(wire: bytes) -> None:
    """No byte of a stranger's that is not printable ASCII gets into a text."""
    for reply in read([wire]):
        if isinstance(reply, Reply):
            assert all(byte == 10 or 32 <= byte < 127 for byte in reply.text())
            assert all(32 <= byte < 127 for byte in reply.one_line())
            assert reply.text().endswith(b"\n")


def test_ten_thousand_lines() -> None:
    """A reply of 10,000 lines is one reply, of which the beginning is kept."""
    wire = b"250-and so on and so forth\r\n" * 10_000 + b"250 end\r\n"
    (reply,) = read([wire[at : at + 4096] for at in range(0, len(wire), 4096)])
    assert isinstance(reply, Reply)
    assert (reply.code, len(reply.raw)) == (250, KEEP_MAX)


def test_a_line_of_100_kb() -> None:
    """A line of 100 kB is a reply, of which the beginning is kept."""
    (reply,) = read([b"550 " + b"x" * 100_000, b"\r\n"])
    assert isinstance(reply, Reply)
    assert (reply.code, len(reply.raw)) == (550, KEEP_MAX)


@pytest.mark.parametrize(
    ("piece", "most"),
    [(b"250-on\r\n" * 1000, REPLY_MAX), (b"x" * 8000, LINE_MAX), (b"220 " + b"x" * 7996, LINE_MAX)],
)
def test_a_reply_without_an_end(piece: bytes, most: int) -> None:
    """A reply that never ends is given up, and holds little memory until then."""
    replies, taken = Replies(), 0
    with pytest.raises(BadReply, match="no end"):
        while taken <= 2 * most:
            replies.receive(piece)
            taken += len(piece)
            assert replies.next() is None
    assert most < taken <= most + 2 * len(piece)


def test_waiting() -> None:
    """It is known whether something came that was not asked for."""
    replies = Replies()
    replies.receive(b"250 ok\r\n421")
    assert replies.next() is not None
    assert replies.waiting
    replies.receive(b" bye\r\n")
    assert replies.next() is not None
    assert not replies.waiting
