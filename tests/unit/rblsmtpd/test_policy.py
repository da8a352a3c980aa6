"""Who is listed, and what that means."""

import ipaddress
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.rblsmtpd import policy
from qm.rblsmtpd.policy import SERVED, Addresses, Dns, Kind, Source, Unknown, Verdict

Zone = Mapping[bytes, tuple[str | None, bytes | None]]  # name to its address and text; None: no answer


def _dns(zone: Zone) -> Dns:
    def addresses(name: bytes) -> Addresses:
        found = zone.get(name, ("", b""))[0]
        if found is None:
            raise Unknown
        return [ipaddress.IPv4Address(word) for word in found.split()]

    def text(name: bytes) -> bytes:
        found = zone.get(name, ("", b""))[1]
        if found is None:
            raise Unknown
        return found

    return Dns(addresses, text)


def _source(word: str, *flags: str) -> Source:
    kind, base = word.split(":")
    return policy.source(Kind(kind.encode()), base.encode(), bounce="b" in flags, closed="c" in flags)


ZONE: Zone = {
    b"2.0.0.127.bl": ("127.0.0.2", b"listed"),
    b"3.0.0.127.bl": ("", b"text only"),
    b"4.0.0.127.bl": ("127.0.0.4", b""),
    b"5.0.0.127.bl": ("192.0.2.1", b"parked"),
    b"6.0.0.127.bl": ("127.255.255.254", b"open resolver"),
    b"7.0.0.127.bl": (None, None),
    b"2.0.0.127.wl": ("127.0.0.9", b""),
    b"7.0.0.127.wl": (None, None),
}


def _judge(last: int, *sources: Source) -> Verdict:
    return policy.judge(sources, b"127.0.0.%d" % last, _dns(ZONE))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (b"", SERVED),
        (b"come later", Verdict(True, b"451 come later")),
        (b"-never", Verdict(True, b"553 never")),
        (b"-", Verdict(True, b"553 ")),
        (b"a\r\n\xffb", Verdict(True, b"451 a???b")),
        (b"x" * 300, Verdict(True, b"451 " + b"x" * 200)),
    ],
)
def test_the_environment(text: bytes, verdict: Verdict) -> None:
    """RBLSMTPD is empty for yes, a text for later, a hyphen and a text for never; of the text 200 bytes count."""
    assert policy.told(text) == verdict


def test_the_first_decision_wins() -> None:
    """Lists decide in their order, those that allow as well as those that block."""
    assert _judge(2, _source("r:bl"), _source("a:wl")) == Verdict(True, b"451 listed")
    assert _judge(2, _source("a:wl"), _source("r:bl")) == SERVED
    assert _judge(1, _source("a:wl"), _source("r:bl")) == SERVED


def test_bounce_is_of_a_list() -> None:
    """-b makes the 553 of the lists after it only."""
    assert _judge(2, _source("r:bl", "b")) == Verdict(True, b"553 listed")
    assert _judge(2, _source("r:other", "b"), _source("r:bl")) == Verdict(True, b"451 listed")


def test_a_text_alone_is_an_entry() -> None:
    """Without codes a TXT record lists, and an A record without text does not, as in ucspi-tcp."""
    assert _judge(3, _source("r:bl")) == Verdict(True, b"451 text only")
    assert _judge(4, _source("r:bl")) == SERVED


def test_only_configured_codes_count() -> None:
    """With codes an A record lists that is one of them; without, one of 127.0.0.0/8."""
    assert _judge(2, _source("r:bl=127.0.0.2")) == Verdict(True, b"451 listed")
    assert _judge(2, _source("r:bl=3-9")) == SERVED
    assert _judge(4, _source("r:bl=127.0.0.3-9")) == Verdict(True, b"451 your address is listed by bl")
    assert _judge(3, _source("r:bl=2-9")) == SERVED
    assert _judge(5, _source("r:bl")) == SERVED
    assert _judge(2, _source("a:wl=8"), _source("r:bl")) == Verdict(True, b"451 listed")


@pytest.mark.parametrize("last", [6, 7])
def test_an_unavailable_list(last: int) -> None:
    """127.255.255.N is as no answer: open without -c, later with it, and never a bounce from then on."""
    other = {b"%d.0.0.127.bl2" % last: ("127.0.0.2", b"other")}
    dns = _dns({**ZONE, **other})
    assert _judge(last, _source("r:bl", "b")) == SERVED
    assert _judge(last, _source("r:bl=2-9", "b")) == SERVED
    assert _judge(last, _source("r:bl", "b", "c")) == Verdict(True, b"451 temporary RBL lookup error")
    both = (_source("r:bl", "b"), _source("r:bl2", "b"))
    assert policy.judge(both, b"127.0.0.%d" % last, dns) == Verdict(True, b"451 other")


def test_an_unavailable_list_of_friends() -> None:
    """Open, it lets in; closed, the next list is asked, which does not bounce."""
    assert _judge(7, _source("a:wl"), _source("r:bl", "c")) == SERVED
    zone = {**ZONE, b"7.0.0.127.bl": ("127.0.0.2", b"listed")}
    closed = (_source("a:wl", "c"), _source("r:bl", "c", "b"))
    assert policy.judge(closed, b"127.0.0.7", _dns(zone)) == Verdict(True, b"451 listed")


@pytest.mark.parametrize("ip", [b"", b"unknown", b"1.2.3", b"\xff", b"1.2.3.4.example"])
def test_no_address(ip: bytes) -> None:
    """Who has no address cannot be looked up, whatever is in its place."""
    assert policy.judge([_source("r:bl")], ip, _dns(ZONE)) == SERVED
    assert policy.judge([_source("r:bl", "c")], ip, _dns(ZONE)).message == b"451 temporary RBL lookup error"


def test_reversed() -> None:
    """Octets backwards, or nibbles; an IPv4 address written as IPv6 is one of IPv4, and a zone is nobody's business."""
    assert policy.reversed_ip(b"192.0.2.99") == b"99.2.0.192"
    assert policy.reversed_ip(b"::ffff:192.0.2.99") == b"99.2.0.192"
    nibbles = b"b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4"
    assert policy.reversed_ip(b"4321:0:1:2:3:4:567:89ab") == nibbles  # RFC 5782 2.4
    assert policy.reversed_ip(b"4321:0:1:2:3:4:567:89ab%lo") == nibbles


@pytest.mark.parametrize(
    "word",
    [b"", b"a b", b".bl", b"bl..x", b"x" * 64, b"x." * 80, b"bl=", b"bl=x", b"bl=5-4", b"bl=256", b"bl=10.0.0.1",
     b"bl=127.255.255.1", b"bl=127.5", b"bl=0-255,127.1.0.0-255"],
)  # fmt: skip
def test_sources_that_are_wrong(word: bytes) -> None:
    """A base is a domain, a code is one of 127.0.0.0/8 that can be an entry."""
    with pytest.raises(ValueError, match=r"."):
        policy.source(Kind.BLOCK, word, bounce=False, closed=False)


@given(st.binary(max_size=60), st.binary(max_size=300))
def test_any_bytes(ip: bytes, text: bytes) -> None:
    """Whatever an address and a list's text are, what the peer is told is one short line."""

    def some(_: bytes) -> bytes:
        return text

    verdict = policy.judge([_source("r:bl", "c")], ip, Dns(lambda _: [], some))
    assert len(verdict.message) <= 204
    assert verdict.message.isascii()
    assert not set(verdict.message) & set(b"\r\n\0\x1b")


@given(st.binary(max_size=100))
def test_any_source(word: bytes) -> None:
    """Any word is a list or a ValueError."""
    try:
        found = policy.source(Kind.BLOCK, word, bounce=False, closed=False)
    except ValueError:
        return
    assert len(found.codes) <= policy.CODES_MAX
