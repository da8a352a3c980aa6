"""mbox files taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import mboxsplit
from qm.wire.mboxrd import Quoter
from qm.wire.mboxsplit import NoMbox


def _lines(text: bytes) -> list[bytes]:
    return [line + b"\n" for line in text.split(b"\n")[:-1]] + ([last] if (last := text.split(b"\n")[-1]) else [])


def messages(text: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for begins, piece in mboxsplit.split(_lines(text)):
        if begins:
            found.append((piece, b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + piece)
    return found


def test_messages() -> None:
    """From_ lines count behind empty lines; these are no part of a message; one > is taken off."""
    text = b"From a x\nA: b\n\nFrom here\n>From there\n>>From \n> From\n\n\n\nFrom b y\nC: d\nFrom e\n\n"
    assert messages(text) == [
        (b"From a x\n", b"A: b\n"),
        (b"From here\n", b"From there\n>From \n> From\n\n\n"),
        (b"From b y\n", b"C: d\nFrom e\n"),
    ]


@pytest.mark.parametrize("text", [b"A: b\n", b"\nFrom a\n", b"from a\n", b"x"])
def test_no_mbox(text: bytes) -> None:
    """What does not begin with a From_ line is none."""
    with pytest.raises(NoMbox):
        messages(text)


def test_nothing() -> None:
    """An empty file has no messages; a message may have no byte, and no last line end."""
    assert messages(b"") == []
    assert messages(b"From a\n\nFrom b\nx") == [(b"From a\n", b""), (b"From b\n", b"x")]


_BODY = st.lists(st.sampled_from([b"From ", b">From ", b"\n", b"x", b"> ", b">", b"\n\n"])).map(b"".join)


@given(st.lists(_BODY | st.binary(max_size=40), max_size=4))
def test_there_and_back(texts: list[bytes]) -> None:
    """What local and maildir2mbox write is read as the same messages, each with its last line end."""
    written = b""
    for text in texts:
        quoter = Quoter()
        written += b"From s d\n" + quoter.feed(text) + quoter.end() + b"\n"
    found = [message for _, message in messages(written)]
    assert found == [text + b"\n" * (not text.endswith(b"\n") and bool(text)) for text in texts]


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (b"A: b\n\nStatus: RO\n", (False, b"")),
        (b"Status: RO\n\n", (True, b"S")),
        (b"status: O\nX-Status: AF\n", (True, b"FR")),
        (b"X-Status: DT\n", (True, b"DT")),
        (b"Status: \n", (True, b"")),
        (b"Status: R/O\n", (False, b"")),
        (b"Status: AD\n", (True, b"")),
    ],
)
def test_flags(header: bytes, want: tuple[bool, bytes]) -> None:
    """Status and X-Status of the header are a Maildir's flags."""
    assert mboxsplit.flags(header) == want
