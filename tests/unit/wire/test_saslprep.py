"""SASLprep (RFC 4013)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.saslprep import Prohibited, password, prepare


@pytest.mark.parametrize(
    ("given_", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_examples(given_: str, prepared: str) -> None:
    """The examples of RFC 4013 section 3, and a non-ASCII space."""
    assert prepare(given_.encode()) == prepared.encode()


@pytest.mark.parametrize(
    "text", [b"\x07", "\u06271".encode(), b"\xff", "a\u202eb".encode(), b"a\nb", "\u0221".encode()]
)
def test_prohibited(text: bytes) -> None:
    """Control characters, mixed directions, what is no UTF-8, and code points that Unicode 3.2 does not have."""
    with pytest.raises(Prohibited):
        prepare(text)
    assert password(text) == text, "a password may be anything"


@given(st.binary(max_size=40))
def test_any_bytes(text: bytes) -> None:
    """What is prepared stays what it is when it is prepared again; printable ASCII is left alone."""
    try:
        once = prepare(text)
    except Prohibited:
        return
    if once:
        try:
            assert prepare(once) == once
        except Prohibited:
            pass  # RFC 3454 knows such code points
    if text.isascii():
        assert once == text
