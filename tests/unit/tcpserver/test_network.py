"""Whom tcpserver's -C counts together."""

import pytest

from qm.tcpserver.session import _network


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (b"192.0.2.1", b"192.0.2.1", True),
        (b"192.0.2.1", b"192.0.2.2", False),
        (b"2001:db8:0:1::1", b"2001:db8::1:ffff:ffff:ffff:ffff", True),
        (b"2001:db8:0:1::1", b"2001:db8:0:2::1", False),
    ],
)
def test_who_is_one(one: bytes, other: bytes, together: bool) -> None:
    """An IPv4 address is one, and so are all addresses of an IPv6 /64."""
    assert (_network(one) == _network(other)) == together
