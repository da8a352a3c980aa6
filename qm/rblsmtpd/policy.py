"""Who is listed: the lists in the order of the options, the first decision wins (qmail.md 21.5)."""

import enum
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

TEXT_MAX: Final = 200  # bytes of a message after its code, as ucspi-tcp has it
BASE_MAX: Final = 150  # bytes: with the 64 of an IPv6 address a name is still one of DNS
CODES_MAX: Final = 256
_BASE: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_CODE: Final = re.compile(rb"(?:127\.(\d{1,3})\.(\d{1,3})\.)?(\d{1,3})(?:-(\d{1,3}))?")
_CODES: Final = ipaddress.ip_network("127.0.0.0/8")  # RFC 5782 2.1: an answer outside is no entry
_UNAVAILABLE: Final = ipaddress.ip_network("127.255.255.0/24")  # what large lists answer whom they do not serve
_SEEN: Final = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))

Addresses = Sequence[ipaddress.IPv4Address]


class Kind(enum.Enum):
    BLOCK = b"r"
    ALLOW = b"a"


class Source(NamedTuple):
    """One -r or -a, with what the options before it say."""

    kind: Kind
    base: bytes
    codes: frozenset[ipaddress.IPv4Address] = frozenset()  # empty: every one in 127.0.0.0/8
    bounce: bool = False  # -b: 553 for the listed
    closed: bool = False  # -c: who cannot be looked up is listed


class Verdict(NamedTuple):
    """Whether the peer is served; else what it is told."""

    blocked: bool
    message: bytes = b""


class Unknown(Exception):
    """A question had no answer, or one that says nothing."""


class Dns(NamedTuple):
    """Questions; an empty answer means that there is none, Unknown is raised for what may be one later."""

    addresses: Callable[[bytes], Addresses]
    text: Callable[[bytes], bytes]


SERVED: Final = Verdict(False)


def refusal(text: bytes, *, bounce: bool) -> Verdict:
    """Told with 553 or 451; unprintable bytes of *text* are question marks."""
    return Verdict(True, (b"553 " if bounce else b"451 ") + text[:TEXT_MAX].translate(_SEEN))


def told(text: bytes) -> Verdict:
    """What RBLSMTPD in the environment says."""
    if not text:
        return SERVED
    return refusal(text[1:], bounce=True) if text.startswith(b"-") else refusal(text, bounce=False)


def _codes(text: bytes) -> Iterable[ipaddress.IPv4Address]:
    for word in text.split(b","):
        found = _CODE.fullmatch(word)
        if found is None:
            raise ValueError("a return code is 127.0.0.N, perhaps with a range -M")
        second, third, low, high = (int(digits or 0) for digits in found.groups())
        if found[4] and high < low:
            raise ValueError("a range goes up")
        for last in range(low, max(low, high) + 1):
            code = ipaddress.IPv4Address(f"127.{second}.{third}.{last}")
            if code in _UNAVAILABLE:
                raise ValueError("127.255.255.N says that the list is unavailable")
            yield code


def source(kind: Kind, word: bytes, *, bounce: bool, closed: bool) -> Source:
    """The list that *word*, ``base`` or ``base=code,code-code``, names; raises ValueError."""
    base, equals, text = word.partition(b"=")
    if len(base) > BASE_MAX or not _BASE.fullmatch(base):
        raise ValueError("the base of a list is a domain")
    codes = frozenset(_codes(text)) if equals else frozenset()
    if len(codes) > CODES_MAX:
        raise ValueError(f"there are more than {CODES_MAX} return codes")
    return Source(kind, base.rstrip(b"."), codes, bounce, closed)


def reversed_ip(ip: bytes) -> bytes:
    """The labels of *ip* in a list: octets (RFC 5782 2.1) or nibbles (RFC 5782 2.4), backwards; raises ValueError."""
    address = ipaddress.ip_address(ip.decode("ascii"))
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        if address.ipv4_mapped is None:
            return ".".join(reversed(address.exploded.replace(":", ""))).encode("ascii")
        address = address.ipv4_mapped
    return ".".join(reversed(str(address).split("."))).encode("ascii")


def _counts(found: Addresses, codes: frozenset[ipaddress.IPv4Address]) -> bool:
    """Whether one of the addresses that a list answers is an entry; raises Unknown if the list does not serve us."""
    if any(code in _UNAVAILABLE for code in found):
        raise Unknown
    return any(code in codes if codes else code in _CODES for code in found)


def _entry(source: Source, name: bytes, dns: Dns) -> bytes | None:
    """The text of the entry *name* of a blocking list, or None; raises Unknown.

    Without codes the text decides, as it always did, so that most peers cost one question; but the code must agree
    where there is one.
    """
    if not source.codes:
        text = dns.text(name)
        if not text:
            return None
        found = dns.addresses(name)
        return text if not found or _counts(found, source.codes) else None
    if not _counts(dns.addresses(name), source.codes):
        return None
    try:
        text = dns.text(name)
    except Unknown:
        text = b""
    return text or b"your address is listed by " + source.base


def judge(sources: Iterable[Source], ip: bytes, dns: Dns) -> Verdict:
    """What the lists say of *ip*; a question without answer never makes a 553."""
    may_bounce = True
    for source in sources:
        try:
            name = reversed_ip(ip) + b"." + source.base
            if source.kind is Kind.ALLOW:
                if _counts(dns.addresses(name), source.codes):
                    return SERVED
                continue
            text = _entry(source, name, dns)
            if text is not None:
                return refusal(text, bounce=source.bounce and may_bounce)
        except (Unknown, ValueError):  # no address is one that cannot be looked up
            may_bounce = False
            if source.closed and source.kind is Kind.BLOCK:
                return refusal(b"temporary RBL lookup error", bounce=False)
            if not source.closed and source.kind is Kind.ALLOW:
                return SERVED
    return SERVED
