"""A connection's environment and its lines in the log."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import ucspi
from qm.wire.ucspi import Address, Names

LOCAL, REMOTE = Address(b"192.0.2.1", 25), Address(b"198.51.100.2", 40000)


def test_the_environment_of_a_connection() -> None:
    """The UCSPI variables, and those that all connections have."""
    names = Names(b"mx.example", b"client.example", b"joe")
    assert ucspi.environment({b"PATH": b"/bin"}, LOCAL, REMOTE, names) == {
        b"PATH": b"/bin",
        b"PROTO": b"TCP",
        b"TCPLOCALIP": b"192.0.2.1",
        b"TCPLOCALPORT": b"25",
        b"TCPLOCALHOST": b"mx.example",
        b"TCPREMOTEIP": b"198.51.100.2",
        b"TCPREMOTEPORT": b"40000",
        b"TCPREMOTEHOST": b"client.example",
        b"TCPREMOTEINFO": b"joe",
    }


def test_what_is_not_known_is_not_there() -> None:
    """A name that was inherited is no name of this connection."""
    stale = {b"TCPREMOTEHOST": b"x", b"TCPREMOTEINFO": b"x", b"TCPLOCALHOST": b"x", b"TCP6REMOTEIP": b"x", b"A": b"b"}
    base = ucspi.base({**stale, b"QMREADY": b"9", b"PROTO": b"SSL", b"TCPX": b"y"}, b"/bin")
    assert base == {b"A": b"b", b"TCPX": b"y", b"PATH": b"/bin"}
    env = ucspi.environment(base, LOCAL, REMOTE, Names())
    assert {b"TCPREMOTEHOST", b"TCPREMOTEINFO", b"TCPLOCALHOST", b"TCP6REMOTEIP"}.isdisjoint(env)
    assert base == {b"A": b"b", b"TCPX": b"y", b"PATH": b"/bin"}


def test_ipv6_says_so() -> None:
    """PROTO is TCP6, and each variable has its twin."""
    env = ucspi.environment({}, Address(b"::1", 25), Address(b"2001:db8::1", 4), Names(remote_host=b"h"))
    assert env[b"PROTO"] == b"TCP6"
    assert env[b"TCPREMOTEIP"] == env[b"TCP6REMOTEIP"] == b"2001:db8::1"
    assert env[b"TCPREMOTEHOST"] == env[b"TCP6REMOTEHOST"] == b"h"
    assert len(env) == 11


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("192.0.2.1", b"192.0.2.1"),
        ("::ffff:192.0.2.1", b"192.0.2.1"),
        ("::1", b"::1"),
        ("::ffff:0:1", b"::ffff:0:1"),
        ("2001:db8::ffff:1", b"2001:db8::ffff:1"),
    ],
)
def test_a_mapped_address_is_ipv4(ip: str, text: bytes) -> None:
    """Rules for 127. hold on a socket of both families too."""
    assert ucspi.plain(ip) == text


def test_the_lines_that_log_analysers_know() -> None:
    """LITERAL, qmail.md 21.1."""
    names = Names(b"mx.example", b"client.example", b"joe")
    assert ucspi.status_line(3, 40) == b"tcpserver: status: 3/40"
    assert ucspi.met_line(77, REMOTE) == b"tcpserver: pid 77 from 198.51.100.2"
    assert ucspi.verdict_line(True, 77, LOCAL, REMOTE, names) == (
        b"tcpserver: ok 77 mx.example:192.0.2.1:25 client.example:198.51.100.2:joe:40000"
    )
    assert ucspi.verdict_line(False, 77, LOCAL, REMOTE, Names(b"0")) == (
        b"tcpserver: deny 77 0:192.0.2.1:25 :198.51.100.2::40000"
    )
    assert ucspi.end_line(77, 256) == b"tcpserver: end 77 status 256"


def test_a_field_is_short_and_has_nothing_odd() -> None:
    """Cut at 100 bytes; blanks, control bytes, 8-bit bytes and % are question marks."""
    assert ucspi.field(b"a b%c\n\x7f\xe9:~") == b"a?b?c???:~"
    assert ucspi.field(b"x" * 100) == b"x" * 100
    assert ucspi.field(b"x" * 101) == b"x" * 100 + b"..."
    assert ucspi.field(None) == b""


@given(st.binary(max_size=300))
def test_no_field_breaks_a_line(text: bytes) -> None:
    """Whatever a stranger calls himself."""
    assert re.fullmatch(rb"[!-$&-~]{0,103}", ucspi.field(text))


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ((b"Mail", b"Example", b""), b"mail.example"),
        ((b"a_b-c", b"d", b""), b"a_b-c.d"),
        ((b"a.b", b"$(x)", b"\n", b""), b"a\\056b.\\044\\050x\\051.\\012"),
        ((b"\xff", b""), b"\\377"),
        ((b"",), None),
        ((), None),
    ],
)
def test_names_from_dns(labels: tuple[bytes, ...], name: bytes | None) -> None:
    """Lower case, and every byte that is no host name's as an octal number, as djbdns writes it."""
    assert ucspi.host_text(labels) == name


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (b"", []),
        (b"127.0.0.1", [("127.0.0.1", 53)]),
        (b"127.0.0.1:5353 192.0.2.1", [("127.0.0.1", 5353), ("192.0.2.1", 53)]),
        (b"::1,[::1]:54,[::2]", [("::1", 53), ("::1", 54), ("::2", 53)]),
    ],
)
def test_name_servers(text: bytes, servers: list[tuple[str, int]]) -> None:
    """$DNSCACHEIP is a list of addresses, with ports if they are not 53."""
    assert ucspi.nameservers(text) == servers
