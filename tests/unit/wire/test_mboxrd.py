"""mboxrd quoting (qmail.md 13.7)."""

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.mboxrd import Quoter
from tests.harness.operations import is_linear

_WORDS = [b"From ", b">", b"\n", b"F", b"Fro", b"m ", b" ", b"x", b"\r\n", b"From", b">>From "]
_TEXT = st.lists(st.sampled_from(_WORDS)).map(b"".join)


def _quote(pieces: list[bytes]) -> bytes:
    quoter = Quoter()
    return b"".join([*map(quoter.feed, pieces), quoter.end()])


def _expected(text: bytes) -> bytes:
    """The rule as the reference states it, line by line."""
    ended = text if not text or text.endswith(b"\n") else text + b"\n"
    return re.sub(rb"^(>*From )", rb">\1", ended, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (b"From a\n", b">From a\n"),
        (b">From a\n>>From b\n", b">>From a\n>>>From b\n"),
        (b" From a\nx From b\n>x>From c\nFrom: d\n", b" From a\nx From b\n>x>From c\nFrom: d\n"),
        (b"a\n\nFrom b", b"a\n\n>From b\n"),
        (b"From From >From \n", b">From From >From \n"),
        (b"", b""),
        (b"Fro", b"Fro\n"),
        (b"\n", b"\n"),
    ],
)
def test_examples(text: bytes, quoted: bytes) -> None:
    """A > goes before lines of any number of > and From_; the last line gets its end."""
    assert _quote([text]) == quoted


@given(_TEXT | st.binary(max_size=200))
def test_whole_and_byte_by_byte(text: bytes) -> None:
    """Whole, byte by byte: the same quoting, and that of the rule."""
    assert _quote([text]) == _expected(text)
    assert _quote([text[i : i + 1] for i in range(len(text))]) == _expected(text)


@given(_TEXT, st.lists(st.integers(0, 100), max_size=4))
def test_cut_anywhere(text: bytes, cuts: list[int]) -> None:
    """However a message is cut into pieces, some of them empty, it is quoted alike."""
    marks = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert _quote([text[a:b] for a, b in pairwise(marks)]) == _expected(text)


@pytest.mark.parametrize("word", [b"From ", b">", b">From ", b"\nFrom ", b"x"])
def test_hostile_messages_take_linear_time(word: bytes) -> None:
    """Ten times a text made to be slow takes at most eleven times the work, in pieces and in one."""

    def work(size: int, piece: int) -> Callable[[], object]:
        text = word * (size // len(word))
        pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
        return lambda: _quote(pieces)

    assert is_linear(lambda size: work(size, 64), 10_000)
    assert is_linear(lambda size: work(size, size), 10_000)
