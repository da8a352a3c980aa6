"""control/smtproutes and control/lmtproutes: who takes the mail of a host."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.smtproute import BadRoute, Destination, Routes, destination, routes

SMTP = {
    b".af.mil": b"",
    b"": b"relay",
    b"x.test": b"[192.0.2.1]:2525",
    b".y.test": b"192.0.2.2:26",
    b"v6.test": b"[IPv6:2001:DB8::1]:27",
    b"port.test": b":28",
    b"name.test": b"Relay.Example:29",
    b"smtps.test": b"relay:465",
    b"tls.test": b"relay:2465:tls",
    b"tls2.test": b"relay::tls",
    b"lmtp.test": b"relay",
}
LMTP = {
    b"lmtp.test": b"/run/Dovecot/lmtp",
    b".lmtp.test": b"LMTP.test:24",
    b"v6.lmtp.test": b"[::1]:2424",
    b"not.lmtp.test": b"",
}


class Source:
    def __init__(self, smtp: Mapping[bytes, bytes], lmtp: Mapping[bytes, bytes]) -> None:
        self._tables = {"smtproutes": smtp, "lmtproutes": lmtp}

    def table(self, name: str) -> Mapping[bytes, bytes]:
        return self._tables[name]


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
        (b"smtps.test", Destination(b"relay", 465, True, tls=True)),
        (b"tls.test", Destination(b"relay", 2465, True, tls=True)),
        (b"tls2.test", Destination(b"relay", 465, True, tls=True)),
        (b"LMTP.test", Destination(b"/run/Dovecot/lmtp", 0, True, lmtp=True)),
        (b"a.lmtp.test", Destination(b"lmtp.test", 24, True, lmtp=True)),
        (b"v6.lmtp.test", Destination(b"[::1]", 2424, True, lmtp=True)),
        (b"not.lmtp.test", Destination(b"relay", relay=True)),
    ],
)
def test_walk(host: bytes, want: Destination) -> None:
    """The host, its ends that begin with a dot, the empty key; the first hit decides; LMTP is asked first."""
    assert destination(routes(Source(SMTP, LMTP)), host) == want


A, B, C = (Destination(path, 0, True, lmtp=True) for path in (b"/a", b"/b", b"/c"))
RELAY = Destination(b"relay", relay=True)
BOX = Destination(b"box", 24, True, lmtp=True)


@pytest.mark.parametrize(
    ("lmtp", "host", "want"),
    [
        # the walk: the host, each end of it that begins with a dot, nothing; the longest counts
        ({b"x.test": b"/a", b".test": b"/b", b"": b"/c"}, b"x.test", A),
        ({b"x.test": b"/a", b".test": b"/b", b"": b"/c"}, b"y.x.test", B),
        ({b"x.test": b"/a", b".x.test": b"/b", b".test": b"/c"}, b"a.b.x.test", B),
        ({b"x.test": b"/a", b".test": b"/b", b"": b"/c"}, b"test", C),
        ({b"x.test": b"/a"}, b"y.x.test", RELAY),  # a domain is not its subdomains
        ({b".x.test": b"/a"}, b"x.test", RELAY),  # nor are they the domain
        ({b"x.test": b"/a"}, b"xx.test", RELAY),
        # case, and a last dot
        ({b"x.test": b"/a"}, b"X.TEST.", A),
        ({b"x.test": b"/A"}, b"x.test", Destination(b"/A", 0, True, lmtp=True)),
        # artificial routes: for names that DNS does not have, and for addresses
        ({b"x.artificial": b"box:24"}, b"x.artificial", BOX),
        ({b"[192.0.2.1]": b"/a"}, b"[192.0.2.1]", A),
        # the default route, before all of smtproutes; and exceptions, which smtproutes then decides
        ({b"": b"box:24"}, b"x.test", BOX),
        ({b"": b"/a"}, b"direct.test", A),
        ({b"": b"/a", b"direct.test": b""}, b"direct.test", Destination(b"direct.test")),
        ({b"": b"/a", b".test": b""}, b"y.test", RELAY),
        ({b".test": b"/a", b"": b""}, b"x.example", RELAY),
        ({b"": b"/a"}, b"", A),
        ({}, b"x.test", RELAY),
    ],
)
def test_lmtp_walk(lmtp: dict[bytes, bytes], host: bytes, want: Destination) -> None:
    """lmtproutes has the walk of smtproutes, with its artificial routes and its default; smtproutes comes after it."""
    assert destination(routes(Source({b"": b"relay", b"direct.test": b""}, lmtp)), host) == want


@pytest.mark.parametrize("key", [b"joe@x.test", b"@x.test", b"joe@"])
def test_no_routes_for_addresses(key: bytes) -> None:
    """An address in lmtproutes is an error that names it, and not a line that never counts."""
    with pytest.raises(BadRoute, match=r"lmtproutes: .*the key is an address"):
        routes(Source({}, {key: b"/a"}))


def test_no_routes() -> None:
    """Without smtproutes a host is its own destination, in lower case."""
    assert destination(Routes(), b"X.Test") == Destination(b"x.test")


@pytest.mark.parametrize(
    "value",
    [b"relay:0", b"relay:65536", b"relay:x", b"[relay", b"[::1]x", b"::1", b"relay:25:26", b"relay::", b"relay:25:TLS"],
)
def test_bad_lines(value: bytes) -> None:
    """A line that means nothing is an error that names it, never a guess."""
    with pytest.raises(BadRoute, match=r"smtproutes: x\.test: "):
        routes(Source({b"x.test": value}, {}))


@pytest.mark.parametrize(
    "value",
    [
        b"server",
        b"server:",
        b"server:x",
        b"server:25",
        b":24",
        b"[::1]",
        b"/a b",
        b"/a\tb",
        b"/" + b"x" * 107,
        b"/\xff",
    ],
)
def test_bad_lmtp_lines(value: bytes) -> None:
    """A line of lmtproutes is a path that a socket can have, or a server with its port: LMTP has no port of its own."""
    with pytest.raises(BadRoute, match=r"lmtproutes: x\.test: "):
        routes(Source({}, {b"x.test": value}))


@given(st.binary(max_size=12), st.binary(max_size=12), st.booleans())
def test_any_bytes(host: bytes, value: bytes, lmtp: bool) -> None:
    """Any host and any line give a destination or BadRoute."""
    try:
        found = destination(Routes({} if lmtp else {b"": value}, {b"": value} if lmtp else {}), host)
        assert found.is_path or 0 < found.port < 65536
    except BadRoute:
        pass
