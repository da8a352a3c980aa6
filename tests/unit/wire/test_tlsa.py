"""TLSA records (RFC 6698, RFC 7671, RFC 7672)."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import tlsa
from qm.wire.record import Malformed
from qm.wire.tlsa import Tlsa

RECORDS = st.builds(Tlsa, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80))


@given(st.lists(RECORDS, max_size=5))
def test_packed(records: list[Tlsa]) -> None:
    """Records come back as they were, in one word."""
    word = tlsa.pack(records)
    assert tlsa.unpack(word) == tuple(records)
    assert b" " not in word and b"\n" not in word


@given(st.binary(max_size=60))
def test_any_bytes(word: bytes) -> None:
    """Any bytes are records or Malformed."""
    try:
        tlsa.unpack(word)
    except Malformed:
        pass


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (Tlsa(3, 1, 1, b"x" * 32), True),
        (Tlsa(2, 0, 2, b"x" * 64), True),
        (Tlsa(3, 0, 0, b"x"), True),
        (Tlsa(0, 0, 1, b"x" * 32), False),
        (Tlsa(1, 0, 1, b"x" * 32), False),
        (Tlsa(4, 0, 1, b"x" * 32), False),
        (Tlsa(3, 2, 1, b"x" * 32), False),
        (Tlsa(3, 1, 3, b"x" * 32), False),
        (Tlsa(3, 1, 1, b"x" * 31), False),
        (Tlsa(3, 1, 0, b""), False),
    ],
)
def test_usable(record: Tlsa, good: bool) -> None:
    """Usages 2 and 3, known selectors and digests of the right length."""
    assert tlsa.is_usable(record) == good


def test_the_strongest_digest_counts() -> None:
    """A SHA-256 digest does not count beside a SHA-512 one of the same usage and selector (RFC 7671 9)."""
    weak, strong, other = Tlsa(3, 1, 1, b"x" * 32), Tlsa(3, 1, 2, b"x" * 64), Tlsa(3, 0, 1, b"x" * 32)
    assert tlsa.usable([weak, strong, other]) == (strong, other)


def test_matches() -> None:
    """The whole certificate or its key, as it is or by digest."""
    assert tlsa.matches(Tlsa(3, 0, 0, b"cert"), b"cert", b"key")
    assert tlsa.matches(Tlsa(3, 1, 1, hashlib.sha256(b"key").digest()), b"cert", b"key")
    assert tlsa.matches(Tlsa(3, 0, 2, hashlib.sha512(b"cert").digest()), b"cert", b"key")
    assert not tlsa.matches(Tlsa(3, 1, 0, b"cert"), b"cert", b"key")
