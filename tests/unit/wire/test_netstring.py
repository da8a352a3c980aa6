"""Netstrings: whatever comes gives netstrings or Malformed (qmail.md 16.7)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.netstring import LENGTH_MAX, Netstrings, encode
from qm.wire.record import Malformed


def _source(*pieces: bytes) -> Callable[[], bytes]:
    rest = [piece for piece in pieces if piece]
    return lambda: rest.pop(0) if rest else b""


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 9))
def test_what_is_written_is_read(texts: list[bytes], size: int) -> None:
    """However the bytes are cut."""
    wire = b"".join(map(encode, texts))
    reader = Netstrings(_source(*(wire[at : at + size] for at in range(0, len(wire), size))))
    assert [reader.text(50) for _ in texts] == texts
    assert reader.over() and reader.taken == len(wire)


@given(st.binary(max_size=60), st.integers(1, 9))
def test_any_bytes(wire: bytes, size: int) -> None:
    """Bytes that are no netstring are Malformed, and nothing else."""
    reader = Netstrings(_source(*(wire[at : at + size] for at in range(0, len(wire), size))))
    try:
        while not reader.over():
            reader.text(20)
    except Malformed:
        pass
    assert reader.taken <= len(wire)


def test_ten_digits() -> None:
    """A length may have leading zeros, up to ten digits in all."""
    assert Netstrings(_source(b"0000000001:x,")).text(20) == b"x"


@pytest.mark.parametrize(
    "wire",
    [b":,", b"1a", b"-1:", b" 1:x,", b"1:x;", b"3:x,", b"5", b"", b"%d:" % (LENGTH_MAX + 1), b"00000000001:x,"],
)
def test_bad(wire: bytes) -> None:
    """No length, a wrong one, one beyond all measure, no comma, the end too early."""
    with pytest.raises(Malformed):
        Netstrings(_source(wire)).text(100)


def test_leading_zeros_and_nothing() -> None:
    """qmail takes leading zeros; a netstring may be empty."""
    reader = Netstrings(_source(b"0003:abc,0:,"))
    assert (reader.text(9), reader.text(9)) == (b"abc", b"")


def test_what_is_too_long_is_thrown_away() -> None:
    """A text over its limit is None, and the next netstring is found behind it."""
    reader = Netstrings(_source(encode(b"x" * 100), encode(b"y")))
    assert (reader.text(99), reader.text(1)) == (None, b"y")
