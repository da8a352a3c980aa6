"""What rspawn and its workers say to each other, around a Delivery and its Outcome (docs/INTERNALS.md 1.6.2).

rspawn remembers what one worker has learned and gives it to the next: the way to a destination, and addresses that time
out.  A worker can only change what is remembered of the destination that it serves, and which addresses are skipped.
"""

from enum import Enum
from typing import Final, NamedTuple

from qm.wire import tlsa
from qm.wire.mtasts import Mode, Policy
from qm.wire.record import Malformed, number, pack
from qm.wire.smtproute import Destination
from qm.wire.tlsa import Tlsa

ROUTE_MAX: Final = 4000  # bytes
SKIPPED_MAX: Final = 200  # addresses; with a Delivery and a route they fit into RECORD_MAX


_FLAGS: Final = (b"r", b"t", b"l")  # of a Destination: relay, tls, lmtp


class Trust(Enum):
    """What DNSSEC vouches for."""

    NOTHING = b"-"
    NAME = b"n"  # that this is the destination's host
    TLSA = b"t"  # and its TLSA records
    LATER = b"?"  # its TLSA records could not be looked up


class Host(NamedTuple):
    """One mail exchanger, or the host itself."""

    preference: int
    name: bytes  # for people, RFC 3464 and TLS; ``[address]`` for a literal
    addresses: tuple[bytes, ...]  # in the order of trying
    trust: Trust = Trust.NOTHING
    tlsa: tuple[Tlsa, ...] = ()


class Route(NamedTuple):
    """The way to a destination, found and free of ourselves."""

    until_s: float  # of the monotonic clock, which all processes share; 0: not to be kept
    hosts: tuple[Host, ...]
    sts: Policy | None = None  # its max_age_s is not passed on


class Job(NamedTuple):
    destination: Destination
    route: bytes  # packed, or empty
    skipped: frozenset[bytes]  # addresses that are not to be tried now
    delivery: bytes  # packed


class Report(NamedTuple):
    route: bytes  # packed, to be kept; empty: nothing new
    timed_out: tuple[bytes, ...]  # addresses that did not answer to connect
    connected: tuple[bytes, ...]  # addresses that did
    outcome: bytes  # packed


def pack_route(route: Route) -> bytes:
    """Hosts that do not fit are left out, and without hosts or time to keep it the route is empty.

    It is empty, too, if a host with TLSA records does not fit: those after it may be less protected.
    """
    sts = b"%b %b" % (route.sts.mode.value, b",".join(route.sts.patterns)) if route.sts else b""
    lines = [b"%d" % (route.until_s * 1000), sts]
    size = len(sts)
    for host in route.hosts:
        where = (host.preference, host.name, b",".join(host.addresses))
        line = b"%d %b %b %b %b" % (*where, host.trust.value, tlsa.pack(host.tlsa))
        size += len(line) + 1
        if size > ROUTE_MAX - 40:
            if host.tlsa:
                return b""
            break
        lines.append(line)
    return b"\n".join(lines) if route.until_s and len(lines) > 2 else b""


def unpack_route(text: bytes) -> Route:
    """Raises Malformed for anything that pack_route does not make."""
    until_ms, sts, *lines = [*text.split(b"\n"), b""]
    lines = lines[:-1]
    hosts = []
    for line in lines:
        fields = line.split(b" ")
        if len(fields) != 5:
            raise Malformed("a route with a bad line")
        preference, name, addresses, trust, records = fields
        known = _trust(trust), tlsa.unpack(records)
        hosts.append(Host(number(preference, 65535), name, tuple(addresses.split(b",")), *known))
    return Route(number(until_ms, 1 << 62) / 1000, tuple(hosts), _sts(sts))


def _sts(line: bytes) -> Policy | None:
    mode, _, patterns = line.partition(b" ")
    try:
        return Policy(Mode(mode), 0, tuple(patterns.split(b","))) if line else None
    except ValueError as error:
        raise Malformed("a route with a bad policy") from error


def _trust(word: bytes) -> Trust:
    try:
        return Trust(word)
    except ValueError as error:
        raise Malformed("a host whose trust means nothing") from error


def route_until_s(text: bytes) -> float:
    """Until when a packed route is good; raises Malformed."""
    return number(text.partition(b"\n")[0], 1 << 62) / 1000


def pack_job(job: Job) -> bytes:
    host, port, *flags = job.destination
    said = b"".join(letter for letter, flag in zip(_FLAGS, flags, strict=True) if flag)
    return pack(host, b"%d" % port, said, job.route, b" ".join(job.skipped)) + job.delivery


def unpack_job(record: bytes) -> Job:
    """Raises Malformed."""
    parts = record.split(b"\0", 5)
    if len(parts) != 6:
        raise Malformed("a job without a delivery")
    host, port, said, route, skipped, delivery = parts
    destination = Destination(host, number(port, 65535), *(letter in said for letter in _FLAGS))
    return Job(destination, route, frozenset(skipped.split()), delivery)


def pack_report(report: Report) -> bytes:
    return pack(report.route, b" ".join(report.timed_out), b" ".join(report.connected)) + report.outcome


def unpack_report(record: bytes) -> Report:
    """Raises Malformed."""
    parts = record.split(b"\0", 3)
    if len(parts) != 4 or len(parts[0]) > ROUTE_MAX:
        raise Malformed("a report without an outcome")
    return Report(parts[0], tuple(parts[1].split()), tuple(parts[2].split()), parts[3])
