"""Records: NUL-terminated fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.record import Malformed, number, pack, unpack

FIELD = st.binary(max_size=50).map(lambda field: field.replace(b"\0", b""))


@given(st.lists(FIELD, min_size=1, max_size=6))
def test_what_was_packed_is_unpacked(fields: list[bytes]) -> None:
    """Fields survive the way through a record, empty ones too."""
    assert unpack(pack(*fields), len(fields)) == fields


@given(FIELD, FIELD)
def test_a_field_with_a_nul_is_not_packed(before: bytes, after: bytes) -> None:
    """A NUL in a field would shift all others, so it is refused."""
    with pytest.raises(ValueError, match="NUL"):
        pack(b"first", before + b"\0" + after)


@given(st.binary(max_size=100), st.integers(1, 6))
def test_any_bytes_are_fields_or_malformed(record: bytes, count: int) -> None:
    """Whatever a peer sends gives exactly the fields asked for, or Malformed."""
    try:
        fields = unpack(record, count)
    except Malformed:
        return
    assert len(fields) == count
    assert pack(*fields) == record


FULLWIDTH_ONE = "\uff11".encode()


@pytest.mark.parametrize("field", [b"", b"-1", b"+1", b" 1", b"1 ", b"1_0", b"0x1", b"1\n", FULLWIDTH_ONE, b"9" * 21])
def test_only_plain_digits_are_a_number(field: bytes) -> None:
    """Python's int takes signs, blanks and underscores; a record does not."""
    with pytest.raises(Malformed):
        number(field, 1 << 64)


def test_a_number_has_a_limit() -> None:
    """A number over the limit is malformed, the limit itself is not."""
    assert number(b"255", 255) == 255
    with pytest.raises(Malformed):
        number(b"256", 255)
