"""QMTP's text: line ends are decoded however the bytes are cut (qmail.md 16.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.qmtptext import decoder
from qm.wire.record import Malformed

TEXTS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a"]), max_size=12).map(b"".join)


def _cut(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


@given(TEXTS, st.integers(1, 5))
def test_either_kind(text: bytes, size: int) -> None:
    """LF: as it is; CR: CR LF is a line end, and nothing else is changed."""
    assert b"".join(decoder(_cut(b"\n" + text, size))) == text
    assert b"".join(decoder(_cut(b"\r" + text, size))) == text.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("wire", [b"", b"Subject: x\n", b" \n"])
def test_neither(wire: bytes) -> None:
    """Nothing, or another first byte, is no text."""
    with pytest.raises(Malformed):
        list(decoder(_cut(wire, 3)))
