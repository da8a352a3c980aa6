"""qm-tcpto's question and rspawn's answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import silent
from qm.wire.record import Malformed, pack
from qm.wire.silent import Silent

KNOWN = [Silent(b"192.0.2.1", 2, 40), Silent(b"2001:db8::1", 10, 0)]


@pytest.mark.parametrize("known", [[], KNOWN])
def test_an_answer_is_read_as_it_was_written(known: list[Silent]) -> None:
    """Any table of addresses comes over, an empty one too."""
    assert silent.unpack_known(silent.pack_known(known)) == known


def test_a_full_table_fits() -> None:
    """200 addresses of the longest kind are one record."""
    known = [Silent(b"2001:0db8:0000:0000:0000:0000:255.255.255.255", 10, 10**9)] * 200
    assert len(silent.pack_known(known)) < 65536


@given(st.binary(max_size=100))
def test_a_spawner_that_lies(text: bytes) -> None:
    """Whatever rspawn answers, what is shown is an address and two numbers, or nothing (its reader may be root)."""
    try:
        known = silent.unpack_known(text)
    except Malformed:
        return
    assert all(one.address.isascii() and one.address.decode().isprintable() for one in known)


@pytest.mark.parametrize("line", [b"\x1b[31m 1 2", b"192.0.2.1 1", b"192.0.2.1 1 -2", b"h.example 1 2", b"::1 1 2 3"])
def test_what_is_no_line(line: bytes) -> None:
    """Anything but an address and two numbers is refused."""
    with pytest.raises(Malformed):
        silent.unpack_known(pack(line))


def test_how_many_were_forgotten() -> None:
    """The answer to clear is a number."""
    assert silent.unpack_cleared(silent.pack_cleared(3)) == 3
    with pytest.raises(Malformed):
        silent.unpack_cleared(pack(b"many"))
