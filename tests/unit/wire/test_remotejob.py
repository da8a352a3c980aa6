"""The records between rspawn and its workers."""

from hypothesis import given
from hypothesis import strategies as st

from qm.wire.record import Malformed
from qm.wire.remotejob import (
    ROUTE_MAX,
    Host,
    Job,
    Report,
    Route,
    pack_job,
    pack_report,
    pack_route,
    route_until_s,
    unpack_job,
    unpack_report,
    unpack_route,
)
from qm.wire.smtproute import Destination

ROUTE = Route(12.5, (Host(10, b"a.test", (b"192.0.2.1", b"2001:db8::1")), Host(20, b"[192.0.2.2]", (b"192.0.2.2",))))


def test_route() -> None:
    """A route comes back as it was, and tells its time without being read whole."""
    assert unpack_route(pack_route(ROUTE)) == ROUTE
    assert route_until_s(pack_route(ROUTE)) == ROUTE.until_s


def test_route_that_is_not_kept() -> None:
    """A route without time, or without hosts, is nothing."""
    assert pack_route(ROUTE._replace(until_s=0)) == b""
    assert pack_route(Route(1, ())) == b""


def test_large_route() -> None:
    """A stranger's DNS cannot make a route larger than its place; the best hosts stay."""
    hosts = tuple(Host(n, b"x" * 200, (b"192.0.2.1",) * 20) for n in range(20))
    text = pack_route(Route(1, hosts))
    assert len(text) <= ROUTE_MAX
    kept = unpack_route(text).hosts
    assert kept == hosts[: len(kept)] and kept


def test_job_and_report() -> None:
    """Both come back as they were."""
    job = Job(
        Destination(b"x.test", 2525, True, tls=True),
        pack_route(ROUTE),
        frozenset([b"192.0.2.1", b"::2"]),
        b"delivery\0with\0fields\0",
    )
    assert unpack_job(pack_job(job)) == job
    report = Report(pack_route(ROUTE), (b"192.0.2.1",), (b"192.0.2.2", b"::2"), b"outcome\0with\0")
    assert unpack_report(pack_report(report)) == report


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"\0", b"\n", b" ", b"1", b"x", b","])).map(b"".join))
def test_any_bytes(record: bytes) -> None:
    """Any bytes are a record or Malformed."""
    for unpack in (unpack_job, unpack_report, unpack_route, route_until_s):
        try:
            unpack(record)
        except Malformed:
            pass
