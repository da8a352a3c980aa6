"""Names of certificates (RFC 6125, RFC 9525)."""

import pytest

from qm.wire.certname import address, is_for_any


@pytest.mark.parametrize(
    ("presented", "wanted"),
    [
        (b"mx.example.org", b"MX.Example.ORG."),
        (b"*.example.org", b"mx.example.org"),
        (b"mx.example.org", b".example.org"),
        (b"a.mx.example.org", b".example.org"),
        (b"*.example.org", b".example.org"),
        (b"[192.0.2.1]", b"[192.0.2.1]"),
        (b"[192.0.2.1]", b"192.0.2.1"),
        (b"[2001:db8::a]", b"[2001:DB8:0::A]"),
        (b"[2001:db8::a]", b"[IPv6:2001:db8::a]"),
    ],
)
def test_same(presented: bytes, wanted: bytes) -> None:
    """Case and a last dot do not matter; a * is one label; a wanted .domain is any host below it."""
    assert is_for_any([b"other.test", presented], [b"none.test", wanted])


@pytest.mark.parametrize(
    ("presented", "wanted"),
    [
        (b"*.example.org", b"example.org"),
        (b"*.example.org", b"a.mx.example.org"),
        (b"m*.example.org", b"mx.example.org"),
        (b"*", b"example"),
        (b"*.org", b"example.org"),
        (b"example.org", b".example.org"),
        (b"badexample.org", b".example.org"),
        (b"mx.example.org\0.evil.test", b"mx.example.org"),
        (b"", b""),
        (b"mx.example.org", b""),
        (b"192.0.2.1", b"192.0.2.1"),
        (b"192.0.2.1", b"[192.0.2.1]"),
        (b"[192.0.2.1]", b".0.2.1"),
        (b"*.0.2.1", b"192.0.2.1"),
    ],
)
def test_different(presented: bytes, wanted: bytes) -> None:
    """Nothing else is the same name."""
    assert not is_for_any([presented], [wanted])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"0:0:0:0:0:0:0:1", b"[::1]"),
        (b"[192.0.2.1]", b"[192.0.2.1]"),
        (b"[IPv6:::ffff:192.0.2.1]", b"[192.0.2.1]"),
        (b"1.2.3", None),
        (b"[x", None),
        (b"\xff", None),
    ],
)
def test_an_address_has_one_form(text: bytes, want: bytes | None) -> None:
    """However an address is written, it is one; what is none is a name."""
    assert address(text) == want
