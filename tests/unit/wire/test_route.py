"""Where recipients go (qmail.md 2.5, 7.5, 7.10, section 29)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.route import Local, Remote, Rules, route, rules, walk, without_prefix

RULES = Rules(
    envnoathost=b"me.example",
    locals=frozenset((b"me.example", b"b.com", b"c.net")),
    percenthack=frozenset((b"gw", b"c.net")),
    virtualdomains={
        b"v.example": b"virt",
        b"joe@v.example": b"joe",
        b".sub.example": b"all",
        b"deep.sub.example": b"",
        b"not@sub.example": b"",
    },
)
CATCH_ALL = RULES._replace(virtualdomains={b"": b"any", b"away.example": b""})


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (b"ann", b"ann@me.example"),
        (b"", b"@me.example"),
        (b"ann@me.example", b"ann@me.example"),
        (b"Ann@ME.Example", b"Ann@ME.Example"),
        (b"a@b@me.example", b"a@b@me.example"),
        (b"a%b.com%c.net@gw", b"a@b.com"),
        (b"a%me.example@GW", b"a@me.example"),
        (b"x@v.example", b"virt-x@v.example"),
        (b"X@V.example", b"virt-X@V.example"),
        (b"Joe@v.Example", b"joe-Joe@v.Example"),
        (b"x@host.sub.example", b"all-x@host.sub.example"),
        (b"x@a.b.sub.example", b"all-x@a.b.sub.example"),
    ],
)
def test_local(address: bytes, where: bytes) -> None:
    """locals decide without regard to case, then virtualdomains put their user before the address, whose case stays."""
    found = route(RULES, address)
    assert isinstance(found, Local)
    assert found.address == where


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (b"x@elsewhere.example", b"x@elsewhere.example"),
        (b"x@sub.me.example", b"x@sub.me.example"),
        (b"x@sub.example", b"x@sub.example"),
        (b"x@deep.sub.example", b"x@deep.sub.example"),
        (b"a%b.com@elsewhere.example", b"a%b.com@elsewhere.example"),
        (b"a%x.example@gw", b"a@x.example"),
        (b"nobody@gw", b"nobody@gw"),
        (b"x@", b"x@"),
    ],
)
def test_remote(address: bytes, where: bytes) -> None:
    """What neither locals nor virtualdomains name is remote, and so is a virtual domain with an empty user."""
    found = route(RULES, address)
    assert isinstance(found, Remote)
    assert found.address == where


def test_the_empty_key_catches_all() -> None:
    """A virtualdomains line without a domain takes every other domain, but for the exceptions."""
    assert route(CATCH_ALL, b"x@y.example").address == b"any-x@y.example"
    assert route(CATCH_ALL, b"x@").address == b"any-x@"
    assert isinstance(route(CATCH_ALL, b"x@away.example"), Remote)
    assert isinstance(route(CATCH_ALL, b"x@me.example"), Local)


def test_why() -> None:
    """Each verdict names the control file, and the key that decided."""
    assert route(RULES, b"x@b.com").why == b"locals"
    assert route(RULES, b"x@h.sub.example").why == b"virtualdomains .sub.example"
    assert route(RULES, b"x@deep.sub.example").why == b"virtualdomains deep.sub.example"
    assert b"neither" in route(RULES, b"x@y").why


def test_percent_hack_keeps_the_percent_left_over() -> None:
    """The steps of section 29: one @ at a time, from the right."""
    two = RULES._replace(percenthack=frozenset((b"gw",)))
    assert route(two, b"a%b.com%c.net@gw").address == b"a%b.com@c.net"


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        (b"virt-x@v.example", b"x@v.example"),
        (b"virt-x@V.Example", b"x@V.Example"),
        (b"Virt-x@v.example", b"Virt-x@v.example"),
        (b"all-x@h.sub.example", b"x@h.sub.example"),
        (b"joe-joe@v.example", b"joe-joe@v.example"),
        (b"x-y@deep.sub.example", b"x-y@deep.sub.example"),
        (b"virt-x@me.example", b"virt-x@me.example"),
        (b"virt-x", b"virt-x"),
        (b"virt@v.example", b"virt@v.example"),
    ],
)
def test_bounces_lose_the_prefix(address: bytes, bare: bytes) -> None:
    """A virtual domain's prefix is taken off to the letter; virtual users keep theirs, as in qmail."""
    assert without_prefix(RULES, address) == bare


@given(st.binary(max_size=60))
def test_prefix_comes_off_again(address: bytes) -> None:
    """What a virtual domain puts before an address, bounces take off."""
    found = route(CATCH_ALL, address)
    if isinstance(found, Local) and found.why.startswith(b"virtualdomains"):
        assert without_prefix(CATCH_ALL, found.address) == route(CATCH_ALL._replace(virtualdomains={}), address).address


@given(st.binary(max_size=80))
def test_any_bytes_have_a_way(address: bytes) -> None:
    """Every address goes somewhere, and has a host when it gets there."""
    assert b"@" in route(RULES, address).address


@given(st.text(alphabet="ab.", max_size=20).map(str.encode))
def test_walk_as_qmail_does_it(domain: bytes) -> None:
    """The domain, its ends from each dot on, and nothing: byte by byte as qmail looks for them."""
    slow = [domain[i:] for i in range(len(domain) + 1) if i in (0, len(domain)) or domain[i : i + 1] == b"."]
    assert list(dict.fromkeys(walk(domain))) == list(dict.fromkeys(slow))


class _Controls:
    def line(self, name: str) -> bytes:
        return {"envnoathost": b"Host.Example"}[name]

    def lines(self, name: str) -> tuple[bytes, ...]:
        return {"locals": (b"A.example", b"b.example"), "percenthack": ()}[name]

    def table(self, name: str) -> dict[bytes, bytes]:
        return {"virtualdomains": {b"V.example": b"User"}}[name]


def test_rules_of_control_files() -> None:
    """Domains and keys become small, the user and the host for addresses without one stay as they are written."""
    assert rules(_Controls()) == Rules(
        b"Host.Example", frozenset((b"a.example", b"b.example")), frozenset(), {b"v.example": b"User"}
    )
