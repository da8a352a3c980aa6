"""Where to: MX order, ourselves, families, names and literals."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Permanent
from qm.remote import policy
from qm.remote.policy import Families, NoRoute, Ourselves
from qm.wire.dnsverdict import PERMANENT, Finding, Mx, Verdict
from qm.wire.remotejob import Host

TEMPORARY = sorted(set(Verdict) - PERMANENT - {Verdict.FOUND}, key=lambda verdict: verdict.name)


def found(*addresses: bytes) -> Finding:
    return Finding(Verdict.FOUND, addresses=addresses)


@pytest.mark.parametrize(
    ("host", "want"),
    [
        (b"192.0.2.1", b"192.0.2.1"),
        (b"[192.0.2.1]", b"192.0.2.1"),
        (b"[IPv6:2001:DB8::1]", b"2001:db8::1"),
        (b"[ipv6:::ffff:192.0.2.1]", b"192.0.2.1"),
        (b"[2001:db8::1]", b"2001:db8::1"),
        (b"x.test", None),
        (b"192.0.2", None),
        (b"2001:db8::1", None),
        (b"", None),
    ],
)
def test_literals(host: bytes, want: bytes | None) -> None:
    """Address literals are addresses; a dotted quad is one without brackets too."""
    assert policy.literal(host) == want


@pytest.mark.parametrize("host", [b"[]", b"[x.test]", b"[IPv6:x]", b"[fe80::1%eth0]", b"[192.0.2.256]"])
def test_bad_literals(host: bytes) -> None:
    """Brackets around anything else are a permanent failure."""
    with pytest.raises(Permanent):
        policy.literal(host)


@pytest.mark.parametrize(
    ("host", "want"),
    [
        (b"x.test", "x.test"),
        (b"x.test.", "x.test"),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
        ("BÜCHER.example".encode(), "xn--bcher-kva.example"),
        ("faß.example".encode(), "xn--fa-hia.example"),  # IDNA 2008 keeps it
        ("例え。テスト".encode(), "xn--r8jz45g.xn--zckzah"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"a_b.test", "a_b.test"),
    ],
)
def test_names(host: bytes, want: str) -> None:
    """A name is asked of DNS in A-labels."""
    assert policy.ascii_name(host) == want


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a..b",
        b"a b.test",
        b"a\\046b.test",
        b"x" * 64,
        b".".join([b"x" * 60] * 5),
        b"\xff.test",
        "\u2028.test".encode(),
    ],
)
def test_bad_names(host: bytes) -> None:
    """What cannot be a name is a permanent failure, without asking DNS."""
    with pytest.raises(Permanent):
        policy.ascii_name(host)


@given(st.binary(max_size=40))
def test_any_host(host: bytes) -> None:
    """Any host has a name or is refused; what is said of it is printable."""
    try:
        name = policy.ascii_name(host)
        assert name and name.isascii() and not name.endswith(".")
    except Permanent as error:
        assert error.public.isprintable()


def test_exchangers() -> None:
    """Mail exchangers come best first; the root among others is none."""
    finding = Finding(Verdict.FOUND, mx=(Mx(20, "b"), Mx(10, "a"), Mx(5, "")))
    assert policy.mail_exchangers("x.test", finding) == [Mx(10, "a"), Mx(20, "b")]


def test_no_exchanger() -> None:
    """Without MX records the host is its own exchanger (RFC 5321 5.1)."""
    assert policy.mail_exchangers("x.test", Finding(Verdict.NODATA)) == [Mx(0, "x.test")]


@pytest.mark.parametrize(
    ("finding", "status"),
    [(Finding(Verdict.NXDOMAIN), "5.1.2"), (Finding(Verdict.FOUND, mx=(Mx(0, ""),)), "5.1.10")],
)
def test_permanent(finding: Finding, status: str) -> None:
    """NXDOMAIN and the null MX are for ever (RFC 7505)."""
    with pytest.raises(Permanent) as caught:
        policy.mail_exchangers("x.test", finding)
    assert caught.value.status == status


@pytest.mark.parametrize("verdict", TEMPORARY)
def test_temporary(verdict: Verdict) -> None:
    """Nothing else that DNS can do is for ever, and the MX lookup's failure never falls back to the address."""
    with pytest.raises(NoRoute) as caught:
        policy.mail_exchangers("x.test", Finding(verdict))
    assert caught.value.status == "4.4.3"


def test_addresses_in_order_of_families() -> None:
    """IPv4 and IPv6 come as the family preference has them; hosts without an address are left out."""
    findings = {("a", 4): found(b"192.0.2.1", b"192.0.2.2"), ("a", 6): found(b"::2"), ("b", 4): Finding(Verdict.NODATA)}
    exchangers = [Mx(10, "a"), Mx(20, "b")]
    hosts = policy.with_addresses(exchangers, findings, (6, 4))
    assert hosts == [Host(10, b"a", (b"::2", b"192.0.2.1", b"192.0.2.2"))]


@pytest.mark.parametrize("verdict", TEMPORARY)
def test_a_failed_aaaa_is_nothing_if_a_works(verdict: Verdict) -> None:
    """A failed AAAA lookup makes nothing unsure where A works."""
    findings = {("a", 4): found(b"192.0.2.1"), ("a", 6): Finding(verdict)}
    hosts = policy.with_addresses([Mx(0, "a")], findings, (4, 6))
    assert hosts and policy.unsure("x.test", [Mx(0, "a")], hosts, findings) is None


@pytest.mark.parametrize("verdict", TEMPORARY)
def test_no_address_for_now(verdict: Verdict) -> None:
    """Where A has nothing and AAAA failed, or the other way round, nothing is proved."""
    for one, other in ((4, 6), (6, 4)):
        findings = {("a", one): Finding(Verdict.NODATA), ("a", other): Finding(verdict)}
        assert policy.unsure("x.test", [Mx(0, "a")], [], findings)


def test_before_us() -> None:
    """Only what is strictly better than we are is tried."""
    ourselves = Ourselves([b"192.0.2.9"])
    hosts = [Host(5, b"a", (b"192.0.2.1",)), Host(10, b"b", (b"192.0.2.2",)), Host(10, b"c", (b"192.0.2.9",))]
    assert policy.before_us([*hosts, Host(20, b"d", (b"192.0.2.3",))], ourselves) == hosts[:1]
    assert policy.before_us(hosts[:2], ourselves) == hosts[:2]


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        (b"192.0.2.9", True),
        (b"192.0.2.8", False),
        (b"127.0.0.1", True),
        (b"127.9.9.9", True),
        (b"0.0.0.0", True),
        (b"::", True),
        (b"::1", True),
        (b"::ffff:127.0.0.1", True),
        (b"2001:db8::9", True),
        (b"2001:db8::8", False),
        (b"203.0.113.5", True),  # moreipme
        (b"203.0.113.77", False),  # notipme, whose mask is longer
        (b"198.51.100.1", False),  # both say so: notipme wins
    ],
)
def test_ourselves(address: bytes, ours: bool) -> None:
    """We are our interfaces, loopback, and what moreipme adds; the longest mask decides, notipme wins ties."""
    more = map(policy.network, [b"203.0.113.0/255.255.255.0", b"198.51.100.1"])
    less = map(policy.network, [b"203.0.113.64/26", b"198.51.100.1"])
    assert Ourselves([b"192.0.2.9", b"2001:db8::9"], more, less).have(address) is ours


@pytest.mark.parametrize(
    ("host", "want"),
    [
        (b"x.test", Families((6,), (6,))),
        (b"a.y.test", Families((6, 4), (6, 4))),
        (b"z.test", Families((4, 6), (4, 6))),
    ],
)
def test_families(host: bytes, want: Families) -> None:
    """control/ipfamily is walked like smtproutes; without a word of it, IPv4 comes first."""
    assert policy.families({b"x.test": b"6", b".y.test": b"64"}, host, have_ipv6=True) == want


def test_families_without_ipv6() -> None:
    """A host without IPv6 asks for it only if there is nothing else."""
    assert policy.families({}, b"x.test", have_ipv6=False) == Families((4, 6), (4,))
    assert not policy.have_ipv6([b"127.0.0.1", b"::1", b"fe80::1"])
    assert policy.have_ipv6([b"2001:db8::1"])


def test_equals_take_turns() -> None:
    """Equal preferences come in random order, better ones first; what times out is left out, and there is a limit."""
    hosts = [Host(10, b"a", (b"1", b"2")), Host(10, b"b", (b"3",)), Host(20, b"c", (b"4",))]
    rng = random.Random(1)
    orders = Counter(
        tuple(address for _, address in policy.candidates(hosts, frozenset(), 10, rng)) for _ in range(200)
    )
    assert set(orders) == {(b"1", b"2", b"3", b"4"), (b"3", b"1", b"2", b"4")}
    assert min(orders.values()) > 60
    assert [a for _, a in policy.candidates(hosts, frozenset([b"1", b"3"]), 10, rng)] == [b"2", b"4"]
    assert len(policy.candidates(hosts, frozenset(), 2, rng)) == 2


def test_ignored_keywords() -> None:
    """control/ehloignore takes keywords away, in whatever case."""
    table = {b".x.test": b"chunking Dsn", b"y.test": b""}
    assert policy.ignored_keywords(table, b"mx.x.test") == frozenset([b"CHUNKING", b"DSN"])
    assert policy.ignored_keywords(table, b"y.test") == frozenset()
    assert policy.ignored_keywords({}, b"y.test") == frozenset()
