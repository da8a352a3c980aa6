"""Where to: MX order, ourselves among them, address families (RFC 5321 5.1, RFC 7505, qmail.md 14.2).  Pure."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

import dns.exception
import dns.name
import idna.uts46data  # noqa: F401  loaded now: idna itself does it at the first name, when privileges have been dropped

from qm.errors import Permanent, Temporary
from qm.wire.dnsverdict import SETTLED, Finding, Mx, Verdict
from qm.wire.remotejob import Host, Trust
from qm.wire.route import walk

HOSTS_MAX: Final = 20  # mail exchangers that are looked up
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FAMILIES: Final = {b"4": (4,), b"6": (6,), b"46": (4, 6), b"64": (6, 4)}  # what control/ipfamily may say
_ALWAYS_OURS: Final = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128")))


class NoRoute(Temporary):
    """DNS does not tell just now; the domain may be all right."""


def shown(host: bytes) -> str:
    """A stranger's host or address for a text: printable ASCII, the rest escaped."""
    return host.decode("latin-1").encode("unicode_escape").decode()


# Names and literals


def parse_address(text: bytes) -> Address | None:
    """An IPv4 or IPv6 address; IPv4 in IPv6's clothes is IPv4."""
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return None if getattr(address, "scope_id", None) else address


def literal(host: bytes) -> bytes | None:
    """The address that *host* itself is: ``[1.2.3.4]``, ``1.2.3.4``, ``[IPv6:...]`` (RFC 5321 4.1.3); None for a name.

    Raises Permanent for brackets around anything else.
    """
    bracketed = host.startswith(b"[") and host.endswith(b"]")
    text = host[1:-1] if bracketed else host
    address = parse_address(text[5:] if text[:5].lower() == b"ipv6:" else text)
    if address is not None and (bracketed or address.version == 4):
        return str(address).encode()
    if bracketed:
        raise Permanent(f"Sorry, {shown(host)} is not an address that I know.", status="1.2")
    return None


def ascii_name(host: bytes) -> str:
    """*host* as DNS has it: A-labels for what is not ASCII (RFC 5891); raises Permanent for what cannot be a name."""
    try:
        if host.isascii():
            name = dns.name.from_text(host.decode())
        else:
            name = dns.name.from_unicode(host.decode("utf-8"), idna_codec=dns.name.IDNA_2008_Practical)
        text = name.to_text(omit_final_dot=True)
        if name == dns.name.root or "\\" in text:
            raise UnicodeError("escaped")
    except (dns.exception.DNSException, UnicodeError) as error:
        raise Permanent(f"Sorry, {shown(host)} cannot be the name of a host.", status="1.2") from error
    return text


# What DNS said


def no_answer(host: str, verdict: Verdict) -> NoRoute:
    return NoRoute(f"DNS gave no answer about {host}: {verdict.value}.", status="4.3")


def mail_exchangers(host: str, finding: Finding) -> list[Mx]:
    """Whom to try for *host*, best first; raises NoRoute, and Permanent as the closed table says."""
    if finding.verdict is Verdict.NXDOMAIN:
        raise Permanent(f"Sorry, I couldn't find any host named {host}.", status="1.2")
    if finding.verdict is Verdict.NODATA:
        return [Mx(0, host)]  # RFC 5321 5.1: the host is its own
    if finding.verdict is not Verdict.FOUND:
        raise no_answer(host, finding.verdict)
    named = [mx for mx in finding.mx if mx.name]
    if not named:
        raise Permanent(f"{host} does not accept mail: its MX record is null.", status="1.10")  # RFC 7505 3
    return sorted(named)[:HOSTS_MAX]


def with_addresses(
    exchangers: Iterable[Mx], findings: Mapping[tuple[str, int], Finding], families: Sequence[int]
) -> list[Host]:
    """Those that have addresses, in the order of *families*; *findings* is by name and family."""
    hosts = []
    for mx in exchangers:
        of_families = [findings[mx.name, family] for family in families if (mx.name, family) in findings]
        addresses = tuple(address for finding in of_families for address in finding.addresses)
        if addresses:
            hosts.append(Host(mx.preference, mx.name.encode(), addresses))
    return hosts


def secure_base(findings: Iterable[Finding]) -> str:
    """What a host is called after all CNAMEs, if its addresses are secure (RFC 7672 2.1.1, 2.2.2); else nothing."""
    found = [finding for finding in findings if finding.addresses]
    return found[0].canonical if found and all(finding.secure for finding in found) else ""


def with_tlsa(host: Host, bases: Sequence[str], findings: Sequence[Finding]) -> Host:
    """*host* with the TLSA records of the first of its names that has some; *findings* is by name."""
    for base, finding in zip(bases, findings, strict=True):
        if finding.verdict not in SETTLED:
            return host._replace(trust=Trust.LATER)
        if finding.tlsa and finding.secure:
            return host._replace(name=base.encode(), trust=Trust.TLSA, tlsa=finding.tlsa)
    return host


def unsure(
    host: str, exchangers: Iterable[Mx], found: Iterable[Host], findings: Mapping[tuple[str, int], Finding]
) -> NoRoute | None:
    """What stands in the way of saying that the exchangers without an address have none."""
    names = {mx.name for mx in exchangers} - {known.name.decode() for known in found}
    open_ones = [finding.verdict for (name, _), finding in findings.items() if name in names]
    verdict = next((verdict for verdict in open_ones if verdict not in SETTLED), None)
    return no_answer(host, verdict) if verdict else None


class Families(NamedTuple):
    """*wanted* in the order of trying; *asked* of DNS at once, the rest only if those give nothing."""

    wanted: tuple[int, ...]
    asked: tuple[int, ...]


def _key(table: Mapping[bytes, bytes], host: bytes) -> bytes | None:
    """The key of *table* that *host* has, found as in smtproutes (qmail.md 2.5)."""
    return next((key for key in walk(host) if key in table), None) if table else None


def ignored_keywords(table: Mapping[bytes, bytes], host: bytes) -> frozenset[bytes]:
    """The EHLO keywords that control/ehloignore takes from *host*, in upper case."""
    key = _key(table, host)
    return frozenset() if key is None else frozenset(table[key].upper().split())


def families(table: Mapping[bytes, bytes], host: bytes, *, have_ipv6: bool) -> Families:
    """What control/ipfamily says of *host*, found as in smtproutes; else IPv4, then IPv6 where we have it ourselves."""
    key = _key(table, host)
    if key is not None:
        wanted = FAMILIES[table[key]]
        return Families(wanted, wanted)
    return Families((4, 6), (4, 6) if have_ipv6 else (4,))


# Ourselves


def network(text: bytes) -> Network:
    """``address[/mask]``; raises ValueError."""
    return ipaddress.ip_network(text.decode("ascii"), strict=False)


def is_in(address: str, networks: Iterable[Network]) -> bool:
    parsed = parse_address(address.encode())
    return parsed is not None and any(parsed in network for network in networks)


class Ourselves:
    """Which addresses are this machine: its interfaces', moreipme's, less notipme's; the longest mask decides."""

    def __init__(self, interfaces: Iterable[bytes], more: Iterable[Network] = (), less: Iterable[Network] = ()) -> None:
        own = [ipaddress.ip_network(address.decode()) for address in interfaces]
        rules = [(network, True) for network in (*_ALWAYS_OURS, *own, *more)]
        # notipme wins between equals (qmail.md 25.6); stable, so it comes first
        self._rules = sorted([*((network, False) for network in less), *rules], key=lambda rule: -rule[0].prefixlen)

    def have(self, address: bytes) -> bool:
        parsed = parse_address(address)
        return next((ours for network, ours in self._rules if parsed in network), False)


def have_ipv6(interfaces: Iterable[bytes]) -> bool:
    """Whether an address of ours reaches beyond the link."""
    parsed = [parse_address(address) for address in interfaces]
    return any(a is not None and a.version == 6 and not (a.is_loopback or a.is_link_local) for a in parsed)


def before_us(hosts: Sequence[Host], ourselves: Ourselves) -> list[Host]:
    """Only what is strictly better than we are: mail must not go round in circles (RFC 5321 5.1)."""
    ours = [host.preference for host in hosts if any(map(ourselves.have, host.addresses))]
    return [host for host in hosts if not ours or host.preference < min(ours)]


def nobody(host: str, *, ourselves: bool) -> Permanent:
    """The failure of a domain that nobody serves, or for which we are the best although it is not ours."""
    if not ourselves:
        return Permanent(f"Sorry, I couldn't find a mail exchanger or IP address of {host}.", status="4.4")
    return Permanent(
        f"Sorry. Although I'm listed as a best-preference MX or A for {host},\n"
        "it isn't in my control/locals file, so I don't treat it as local.",
        status="4.6",
    )


# The order of trying


def candidates(
    hosts: Iterable[Host], skipped: frozenset[bytes], most: int, rng: Random
) -> Sequence[tuple[Host, bytes]]:
    """At most *most* addresses, equals in random order (RFC 5321 5.1), without those that are known to time out."""
    mixed = [(host.preference, rng.random(), host) for host in hosts]
    mixed.sort(key=lambda item: item[:2])
    return [(host, address) for _, _, host in mixed for address in host.addresses if address not in skipped][:most]
