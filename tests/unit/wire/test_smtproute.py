"""control/smtproutes: who takes the mail of a host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.smtproute import BadRoute, Destination, check, destination

ROUTES = {
    b".af.mil": b"",
    b"": b"relay",
    b"x.test": b"[192.0.2.1]:2525",
    b".y.test": b"192.0.2.2:26",
    b"v6.test": b"[IPv6:2001:DB8::1]:27",
    b"port.test": b":28",
    b"name.test": b"Relay.Example:29",
}


@pytest.mark.parametrize(
    ("host", "want"),
    [
        (b"x.af.mil", Destination(b"x.af.mil")),  # qmail.md section 29
        (b"af.mil", Destination(b"relay", relay=True)),
        (b"X.Test", Destination(b"[192.0.2.1]", 2525, True)),
        (b"x.test.", Destination(b"[192.0.2.1]", 2525, True)),
        (b"a.b.y.test", Destination(b"192.0.2.2", 26, True)),
        (b"y.test", Destination(b"relay", relay=True)),
        (b"v6.test", Destination(b"[ipv6:2001:db8::1]", 27, True)),
        (b"port.test", Destination(b"port.test", 28)),
        (b"name.test", Destination(b"relay.example", 29, True)),
    ],
)
def test_walk(host: bytes, want: Destination) -> None:
    """The host, its ends that begin with a dot, the empty key; the first hit decides."""
    check(ROUTES)
    assert destination(ROUTES, host) == want


def test_no_routes() -> None:
    """Without smtproutes a host is its own destination, in lower case."""
    assert destination({}, b"X.Test") == Destination(b"x.test")


@pytest.mark.parametrize(
    "value", [b"relay:0", b"relay:65536", b"relay:x", b"[relay", b"[::1]x", b"::1", b"relay:25:26"]
)
def test_bad_lines(value: bytes) -> None:
    """A line that means nothing is an error that names it, never a guess."""
    with pytest.raises(BadRoute, match=r"smtproutes: x\.test: "):
        check({b"x.test": value})


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_bytes(host: bytes, value: bytes) -> None:
    """Any host and any line give a destination or BadRoute."""
    try:
        assert 0 < destination({b"": value}, host).port < 65536
    except BadRoute:
        pass
