"""The records between send and rspawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import queueid
from qm.wire.delivery import (
    DELIVERY_MAX,
    OUTCOME_MAX,
    RECIPIENTS_MAX,
    WEIGHT_MAX,
    Addressee,
    Delivery,
    Health,
    Outcome,
    Result,
    pack_delivery,
    pack_outcome,
    unpack_delivery,
    unpack_outcome,
    weight,
)
from qm.wire.record import Malformed

ID = queueid.make(1, 1)
FIELD = st.binary(max_size=20).filter(lambda text: not set(text) & {0, 10})
DELIVERIES = st.builds(
    Delivery,
    number=st.integers(0, 2**40),
    id=st.just(ID),
    flags=st.sampled_from([b"", b"d", b"8U", b"d8U"]),
    sender=FIELD,
    recipients=st.lists(
        st.builds(Addressee, st.integers(0, 99999), FIELD, FIELD, FIELD), min_size=1, max_size=5
    ).map(tuple),
    ret=FIELD,
    envid=FIELD,
    follower=st.sampled_from([b"", b"0.1", b"1000.4194304"]),
)  # fmt: skip
TEXT = st.binary(max_size=20).filter(lambda text: 0 not in text)
OUTCOMES = st.builds(
    Outcome,
    number=st.integers(0, 2**40),
    health=st.sampled_from(Health),
    results=st.lists(st.builds(Result, st.sampled_from([b"K", b"Z", b"D"]), TEXT, TEXT, TEXT, TEXT), max_size=5).map(
        tuple
    ),
)


@given(DELIVERIES)
def test_delivery_round_trip(delivery: Delivery) -> None:
    """What send packs rspawn unpacks."""
    assert unpack_delivery(pack_delivery(delivery)) == delivery


@given(OUTCOMES)
def test_outcome_round_trip(outcome: Outcome) -> None:
    """What rspawn packs send unpacks."""
    assert unpack_outcome(pack_outcome(outcome)) == outcome


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"0", b"\0", b"K", ID, b"up", b"1"])).map(b"".join))
def test_any_bytes(record: bytes) -> None:
    """Any bytes are a record or Malformed."""
    for unpack in (unpack_delivery, unpack_outcome):
        try:
            unpack(record)
        except Malformed:
            pass


@pytest.mark.parametrize("bad", [b"a\nb", b"a\0b"])
def test_no_address_ends_a_field(bad: bytes) -> None:
    """An address with LF or NUL is refused, never sent as two."""
    with pytest.raises(ValueError, match=r"LF|NUL"):
        pack_delivery(Delivery(1, ID, b"", b"a@b", (Addressee(0, bad), Addressee(1, b"c@d"))))


def test_nobody() -> None:
    """A delivery has a recipient."""
    with pytest.raises(ValueError, match="nobody"):
        pack_delivery(Delivery(1, ID, b"", b"a@b", ()))


def test_weight_bounds_the_record() -> None:
    """Recipients whose weights fit make a record that fits."""
    long = [Addressee(100_000, b"x" * 1000, b"SUCCESS,FAILURE,DELAY", b"rfc822;" + b"y" * 490)]
    some = (long * RECIPIENTS_MAX)[: WEIGHT_MAX // weight(long[0])]
    delivery = Delivery(2**60, ID, b"d8U", b"s" * 1000, tuple(some), b"FULL", b"e" * 100)
    assert len(pack_delivery(delivery)) <= DELIVERY_MAX


@pytest.mark.parametrize("count", [1, 50, RECIPIENTS_MAX])
def test_long_texts_are_cut(count: int) -> None:
    """However much is said of however many, the outcome fits."""
    result = Result(b"D", b"t" * 20_000, b"5.999.999", b"m" * 300, b"d" * 5000, True)
    record = pack_outcome(Outcome(2**60, Health.UP, (result,) * count))
    assert len(record) <= OUTCOME_MAX
    assert len(unpack_outcome(record).results) == count
