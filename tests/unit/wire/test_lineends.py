"""Carriage returns before newlines."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.lineends import Change, DelCr, FixCr, add_cr

SAMPLE = b"a\nb\r\n\rc\r\r\n\n\r\n\r"


def _whole(change: Change, *pieces: bytes) -> bytes:
    return b"".join(change(piece) for piece in (*(piece for piece in pieces if piece), b""))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (add_cr, b"a\r\nb\r\r\n\rc\r\r\r\n\r\n\r\r\n\r"),
        (DelCr(), b"a\nb\n\rc\r\n\n\n\r"),
        (FixCr(), b"a\r\nb\r\n\rc\r\r\n\r\n\r\n\r"),
    ],
)
def test_changes(change: Change, changed: bytes) -> None:
    """What each of the three makes of bare and whole ends of lines; a last line is left alone."""
    assert _whole(change, SAMPLE) == changed


@given(st.lists(st.sampled_from([b"\r", b"\n", b"x", b"\r\n", b"\n\r"]), max_size=30), st.integers(0, 60))
def test_cuts(words: list[bytes], cut: int) -> None:
    """However the bytes are cut, each change is the same as that of the whole."""
    text = b"".join(words)
    for make in (lambda: add_cr, DelCr, FixCr):
        whole = _whole(make(), text)
        assert _whole(make(), text[:cut], text[cut:]) == whole
        assert _whole(make(), *(text[i : i + 1] for i in range(len(text)))) == whole
    assert _whole(DelCr(), text) == text.replace(b"\r\n", b"\n")
    assert _whole(FixCr(), text) == re.sub(rb"(?<!\r)\n", b"\r\n", text)
    assert _whole(DelCr(), _whole(lambda piece: add_cr(piece), text)) == text
