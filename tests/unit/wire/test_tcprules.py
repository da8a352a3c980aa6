"""Rules of tcpserver: their lines, their data, and which of them decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import tcprules
from qm.wire.tcprules import BadData, BadRule, Decision, Rule, decode, encode, keys, parse, pointless

ALLOW, DENY = Decision(), Decision(allow=False)
names = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & set(b"\0=\n"))
values = st.binary(max_size=50).filter(lambda value: b"\0" not in value)
decisions = st.builds(Decision, st.booleans(), st.lists(st.tuples(names, values), max_size=5).map(tuple))


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"127.0.0.1:allow", Rule((b"127.0.0.1",), ALLOW)),
        (b"127.:deny  \t\n", Rule((b"127.",), DENY)),
        (b":allow", Rule((b"",), ALLOW)),
        (b'1.2.3.4:allow,RELAYCLIENT=""', Rule((b"1.2.3.4",), Decision(True, ((b"RELAYCLIENT", b""),)))),
        (b"1.:allow,A=/x y,z/,B='\"'", Rule((b"1.",), Decision(True, ((b"A", b"x y,z"), (b"B", b'"'))))),
        (b'1.:deny,A="b"', Rule((b"1.",), Decision(False, ((b"A", b"b"),)))),
        (b'1.:allow,A="b=c"', Rule((b"1.",), Decision(True, ((b"A", b"b=c"),)))),
        (b'1.:allow,X=":deny"', Rule((b"1.",), Decision(True, ((b"X", b":deny"),)))),
        (b"joe@127.0.0.1:deny", Rule((b"joe@127.0.0.1",), DENY)),
        (b"=.example.com:allow", Rule((b"=.example.com",), ALLOW)),
        (b"=a-b.example.com:allow", Rule((b"=a-b.example.com",), ALLOW)),
        (b"a-b@1.2.3.4:allow", Rule((b"a-b@1.2.3.4",), ALLOW)),
        (b"::1:allow", Rule((b"::1",), ALLOW)),
        (b"2001:db8::allow", Rule((b"2001:db8:",), ALLOW)),
        (b"1.2.3.37-39:deny", Rule((b"1.2.3.37", b"1.2.3.38", b"1.2.3.39"), DENY)),
        (b"10.2-3.:allow", Rule((b"10.2.", b"10.3."), ALLOW)),
        (b"10.2-3.4.5:allow", Rule((b"10.2.4.5", b"10.3.4.5"), ALLOW)),
        (b"1.2.3.253-300:allow", Rule((b"1.2.3.253", b"1.2.3.254", b"1.2.3.255"), ALLOW)),
        (b"1.2.3.007-8:allow", Rule((b"1.2.3.7", b"1.2.3.8"), ALLOW)),
    ],
)
def test_rules(line: bytes, rule: Rule) -> None:
    """The lines that ucspi-tcp takes mean what they mean there."""
    assert parse(line) == rule


@pytest.mark.parametrize("line", [b"", b"\n", b"  \t\n", b"# 1.2.3.4:allow", b"#"])
def test_lines_that_are_none(line: bytes) -> None:
    """Comments and empty lines are skipped."""
    assert parse(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"1.2.3.4", b"1.2.3.4:", b"1.2.3.4:allowed", b"1.2.3.4:allow ,A=\"\"", b"1.2.3.4 allow", b"1.2.3.4:ALLOW",
        b"1.2.3.4:allow,", b"1.2.3.4:allow,A", b"1.2.3.4:allow,A=", b'1.2.3.4:allow,A="', b'1.2.3.4:allow,A="b',
        b'1.2.3.4:allow,="b"', b'1.2.3.4:allow,A="b"c', b'1.2.3.4:allow,A="b",', b'1.2.3.4:allow;A="b"',
        b'1.2.3.4:allow,A="\0"', b"1.2.3.4:allow\r", b"\t# comment",
        b"1.2.3.5-3:allow", b"1.2.3.-5:allow", b"1.2.3.5-:allow", b"1-2.3-4.:allow", b"1.2.3.300-400:allow",
        b"1.2.3.x-9:allow", b"2001:db8:1-2::allow", b"1.2.3.1-99999999999:allow",
    ],
)  # fmt: skip
def test_lines_that_are_wrong(line: bytes) -> None:
    """What would be misread is refused, not guessed."""
    with pytest.raises(BadRule):
        parse(line)


@given(st.binary(max_size=200))
def test_any_line_is_a_rule_or_refused(line: bytes) -> None:
    """No line makes parse fail otherwise, or expand to more than 256 addresses."""
    try:
        rule = parse(line)
    except BadRule:
        return
    assert rule is None or 1 <= len(rule.addresses) <= 256


@given(st.from_regex(rb"[0-9.\-]{0,12}:(allow|deny)(,[A-B]=(\"x?\"|/,/))?", fullmatch=True))
def test_lines_like_rules(line: bytes) -> None:
    """Whatever numbers, dots and dashes: a range names each of its addresses once, in order."""
    try:
        rule = parse(line)
    except BadRule:
        return
    assert rule is not None
    assert len(set(rule.addresses)) == len(rule.addresses)
    if len(rule.addresses) > 1:
        assert not any(b"-" in address for address in rule.addresses)


@given(decisions)
def test_data_keeps_the_decision(decision: Decision) -> None:
    """What tcprules writes, tcpserver reads."""
    assert decode(encode(decision)) == decision


@pytest.mark.parametrize(
    ("decision", "data"),
    [
        (ALLOW, b""),
        (DENY, b"D\0"),
        (Decision(True, ((b"A", b""), (b"B", b"x"))), b"+A=\0+B=x\0"),
        (Decision(False, ((b"A", b"1"),)), b"D\0+A=1\0"),
    ],
)
def test_data_as_in_ucspi_tcp(decision: Decision, data: bytes) -> None:
    """A file of ucspi-tcp's tcprules serves here, and ours there."""
    assert encode(decision) == data
    assert decode(data) == decision


@pytest.mark.parametrize("data", [b"D", b"\0", b"E\0", b"+A\0", b"+=x\0", b"+A=b", b"D\0\0", b"DD\0", b"allow\0"])
def test_bad_data_is_refused(data: bytes) -> None:
    """Nobody is let in on data that makes no sense."""
    with pytest.raises(BadData):
        decode(data)


@given(st.binary(max_size=100))
def test_any_data_is_decoded_or_refused(data: bytes) -> None:
    """What is accepted is exactly what encode writes for it."""
    try:
        decision = decode(data)
    except BadData:
        return
    assert decode(encode(decision)) == decision


def test_the_order_of_lookups() -> None:
    """First the most special: user at address, user at host, address, host, prefixes, domains, any host, any."""
    assert list(keys(b"1.2.3.4", b"a.b.c", b"joe")) == [
        b"joe@1.2.3.4", b"joe@=a.b.c", b"1.2.3.4", b"=a.b.c", b"1.2.3.", b"1.2.", b"1.", b"=.b.c", b"=.c", b"=", b"",
    ]  # fmt: skip


def test_only_what_is_known_takes_part() -> None:
    """Without host and user there are address, prefixes, and the default."""
    assert list(keys(b"1.2.3.4", None, None)) == [b"1.2.3.4", b"1.2.3.", b"1.2.", b"1.", b""]
    assert list(keys(b"1.2.3.4", None, b"joe"))[:2] == [b"joe@1.2.3.4", b"1.2.3.4"]
    assert b"@" not in b"".join(keys(b"1.2.3.4", b"h", None))


def test_prefixes_of_ipv6_end_with_a_colon() -> None:
    """As in the usual patch of ucspi-tcp."""
    assert list(keys(b"2001:db8::1", None, None)) == [b"2001:db8::1", b"2001:db8::", b"2001:db8:", b"2001:", b""]
    assert list(keys(b"::1", None, None)) == [b"::1", b"::", b":", b""]


@given(st.binary(max_size=40), st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=40))
def test_lookups_end_with_the_default(ip: bytes, host: bytes | None, info: bytes | None) -> None:
    """Whatever is asked for: few keys, the last of them the empty one."""
    found = list(keys(ip, host, info))
    assert found[-1] == b""
    assert len(found) <= len(ip) + len(host or b"") + 6


@pytest.mark.parametrize(
    "address", [b"1.2.3", b"1.2.3.4.5", b"1.2.3.4.", b"10.0.0.0/8", b"fe80::/10", b"2001:db8", b"x", b"2001:DB8::1"]
)
def test_addresses_that_nobody_has(address: bytes) -> None:
    """A rule that can match no connection is worth a warning."""
    assert pointless(address)


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"1.",
        b"1.2.3.",
        b"1.2.3.4",
        b"::1",
        b"2001:db8::1",
        b"2001:db8:",
        b"1:2:3:4:5:6:7:8",
        b"=x",
        b"=",
        b"joe@x",
    ],
)
def test_addresses_that_somebody_may_have(address: bytes) -> None:
    """No warning then."""
    assert not pointless(address)


def test_a_line_may_be_as_long_as_a_record() -> None:
    """LINE_MAX leaves room for any sensible rule."""
    rule = parse(b'1.:allow,A="' + b"x" * (tcprules.LINE_MAX - 20) + b'"')
    assert rule is not None
