"""What rspawn remembers between workers, with the time passed in."""

import random

import pytest

from qm.rspawn import memory
from qm.rspawn.memory import Routes, Silent
from qm.wire.remotejob import SKIPPED_MAX, Host, Route, pack_route
from qm.wire.smtproute import Destination

HERE = Destination(b"x.test")


def route(until_s: float, size: int = 1) -> bytes:
    return pack_route(Route(until_s, tuple(Host(0, b"x" * 200, (b"192.0.2.1",)) for _ in range(size))))


def test_a_route_has_its_time() -> None:
    """A route is given until its time is over, to its own destination only."""
    routes = Routes()
    routes.keep(HERE, route(100))
    assert routes.find(HERE, 99.9) == route(100)
    assert routes.find(Destination(b"y.test"), 99.9) == b""
    assert routes.find(Destination(b"x.test", 26), 99.9) == b""
    assert routes.find(HERE, 100) == b""


@pytest.mark.parametrize("text", [b"junk", b"\xff", b"99999999999999999999\nx", route(10_000_000)])
def test_a_worker_s_junk(text: bytes) -> None:
    """What a worker should not have said is not kept."""
    routes = Routes()
    routes.keep(HERE, text)
    assert routes.find(HERE, 1) == b""


def test_routes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest routes make room."""
    monkeypatch.setattr(memory, "ROUTES_MAX", 20_000)
    routes = Routes()
    names = [Destination(b"%d.test" % n) for n in range(100)]
    for name in names:
        routes.keep(name, route(100, 5))
    kept = [name for name in names if routes.find(name, 1)]
    assert 5 < len(kept) < 20 and kept == names[-len(kept) :]
    for name in names:
        routes.forget(name)
    assert routes._bytes == 0


A = b"192.0.2.1"


def test_two_time_outs_make_silence() -> None:
    """An address is skipped after two time-outs more than 120 s apart, for an hour or so (qmail.md 14.3)."""
    silent = Silent()
    silent.timed_out(A, 1000)
    assert not silent.skipped(1001, 0)
    silent.timed_out(A, 1100)  # the same trouble
    assert not silent.skipped(1101, 0)
    silent.timed_out(A, 1120)
    assert silent.skipped(1121, 0) == {A}
    assert silent.skipped(1120 + 3839, 0) == {A}
    assert silent.skipped(1120 + 3840, 0) == set()


def test_some_come_back_later() -> None:
    """Deliveries differ in how long they skip: 3840 to 5824 s."""
    silent = Silent()
    silent.timed_out(A, 0)
    silent.timed_out(A, 200)
    times = [max(s for s in range(0, 7000, 64) if silent.skipped(200 + s - 1, number)) for number in range(64)]
    assert (min(times), max(times)) == (3840, 5824)


def test_a_connection_ends_it() -> None:
    """Who answers is no longer silent."""
    silent = Silent()
    silent.timed_out(A, 0)
    silent.timed_out(A, 200)
    silent.connected(A)
    assert silent.skipped(201, 0) == set() and silent.known() == []


def test_the_table_has_a_bound() -> None:
    """There is room for so many addresses; the one that matters least makes room: old, with few time-outs."""
    silent = Silent()
    rng = random.Random(1)
    for n in range(3 * SKIPPED_MAX):
        silent.timed_out(b"%d" % n, n + rng.random())
    assert len(silent.known()) == SKIPPED_MAX
    assert (b"0",) not in [(address,) for address, _ in silent.known()]
    assert b"%d" % (3 * SKIPPED_MAX - 1) in dict(silent.known())
    silent.clear()
    assert silent.known() == []
