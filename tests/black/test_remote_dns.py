"""rspawn's workers find their way: a scripted DNS answerer, exchangers on several loopback addresses (RFC 5321 5.1)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qm.wire.delivery import Health
from tests.harness.barehome import BareHome
from tests.harness.peers import DnsAnswerer, ScriptedMx, free_port
from tests.harness.rspawn import Rspawn, rspawn
from tests.harness.waiting import LIMIT_S

Entries = Mapping[str, Mapping[str, Any]]
BOB = b"bob@x.test"


class World:
    """A home whose DNS is scripted, and a port on which all exchangers listen; loopback is not ourselves here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = BareHome(folder / "home", None)
        self.port = free_port()
        self.home.control("smtproutes", f"::{self.port}\n")
        self.home.control("notipme", "127.0.0.0/8\n127.0.0.1\n::1\n")
        self.home.control("timeoutdns", "2\n")

    def mx(self, address: str = "127.0.0.1", **script: list[Any]) -> ScriptedMx:
        return ScriptedMx(self.folder, script, f"{address}/{self.port}")

    @contextmanager
    def spawner(self, entries: Entries) -> Iterator[tuple[Rspawn, DnsAnswerer]]:
        with DnsAnswerer(self.folder, entries) as dns:
            self.home.control("dnsservers", f"127.0.0.1:{dns.port}\n")
            with rspawn(self.home) as spawner:
                yield spawner, dns


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def answer(*records: str, **more: Any) -> dict[str, Any]:
    return {"answer": list(records), **more}


DO = {verb: {"do": verb} for verb in ("drop", "garbage", "truncate", "lame", "referral", "noedns", "forged")}
REFUSED, SERVFAIL = {"rcode": "REFUSED"}, {"rcode": "SERVFAIL"}
ONE = {"x.test MX": answer("10 a.test."), "a.test A": answer("127.0.0.1")}


@pytest.mark.parametrize(
    "entries",
    [
        ONE,
        {"x.test A": answer("127.0.0.1")},
        {"x.test MX": answer("0 ."), "a.test A": answer("127.0.0.1")} | {"x.test MX": answer("0 .", "10 a.test.")},
        {**ONE, "a.test AAAA": SERVFAIL},
        {**ONE, "a.test AAAA": REFUSED},
        {**ONE, "a.test AAAA": DO["drop"]},
        {**ONE, "a.test AAAA": DO["garbage"]},
        {**ONE, "x.test MX": answer("10 a.test.", **DO["truncate"])},
        {**ONE, "x.test MX": answer("10 a.test.", **DO["noedns"]), "a.test A": answer("127.0.0.1", **DO["noedns"])},
        {**ONE, "x.test MX": answer("10 a.test.", **DO["forged"])},
        {"x.test CNAME": answer("y.test."), "y.test MX": answer("10 a.test."), "a.test A": answer("127.0.0.1")},
        {"x.test MX": answer("10 c.test."), "c.test CNAME": answer("a.test."), "a.test A": answer("127.0.0.1")},
        {**ONE, "x.test MX": answer("5 gone.test.", "10 a.test.")},
        {**ONE, "x.test MX": answer("5 ill.test.", "10 a.test."), "ill.test A": SERVFAIL},
        {"x.test MX": answer("10 a.test."), "a.test AAAA": answer("::1")},
        {"x.test MX": answer("10 a.test."), "a.test AAAA": answer("::1"), "a.test A": DO["drop"]},
    ],
)  # fmt: skip
def test_found(world: World, entries: Entries) -> None:
    """Whatever goes wrong beside it, an exchanger that can be found is; a failed AAAA neither fails nor delays mail."""
    if entries.get("a.test A") != DO["drop"]:
        world.home.control("timeoutdns", f"{LIMIT_S * 2:.0f}\n")  # who waits for what does not come is too late for us
    with world.mx(), world.mx("::1"), world.spawner(entries) as (spawner, dns):
        assert spawner.result(BOB).letter == b"K", dns.asked()


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ({}, b"5.1.2"),
        ({"x.test TXT": answer("none")}, b"5.4.4"),
        ({"x.test MX": answer("0 .")}, b"5.1.10"),
        ({"x.test MX": answer("10 gone.test.")}, b"5.4.4"),
        ({"x.test MX": answer("10 a.test."), "a.test TXT": answer("none")}, b"5.4.4"),
        ({"x.test CNAME": answer("gone.test.")}, b"5.1.2"),
    ],
)
def test_permanent(world: World, entries: Entries, status: bytes) -> None:
    """NXDOMAIN, NODATA and the null MX are for ever, and tell nothing about a destination."""
    with world.spawner(entries) as (spawner, _):
        outcome = spawner.deliver(BOB)
    assert (outcome.results[0].letter, outcome.results[0].status) == (b"D", status)
    assert outcome.health is Health.UNKNOWN and b"x.test" in outcome.results[0].text


@pytest.mark.parametrize(
    "entry",
    [
        REFUSED,
        SERVFAIL,
        {"rcode": "NOTIMP"},
        {"rcode": "NXDOMAIN", **DO["lame"]},
        *[DO[verb] for verb in ("drop", "garbage", "lame", "referral")],
    ],
    ids=lambda entry: "-".join(entry.values()),
)
def test_temporary(world: World, entry: Mapping[str, Any]) -> None:
    """Nothing else that DNS can do bounces mail: neither for the MX nor for the address."""
    entries = {"x.test MX": entry, "x.test A": answer("127.0.0.1"), "y.test A": entry, "y.test AAAA": entry}
    with world.spawner({**entries, "y.test TXT": answer("here")}) as (spawner, _):
        for recipient in (BOB, b"bob@y.test"):
            outcome = spawner.deliver(recipient)
            assert (outcome.results[0].letter, outcome.results[0].status) == (b"Z", b"4.4.3")
            assert outcome.health is Health.BUSY


def test_no_server_at_all(world: World) -> None:
    """A DNS server that is not there is temporary, at once."""
    world.home.control("dnsservers", f"127.0.0.1:{free_port()}\n")
    with rspawn(world.home) as spawner:
        assert spawner.result(BOB).status == b"4.4.3"


def test_the_second_server(world: World) -> None:
    """A server that is not there, or fails, is passed over."""
    with DnsAnswerer(world.folder, ONE) as good, DnsAnswerer(world.folder, {"x.test MX": SERVFAIL}) as bad, world.mx():
        world.home.control("dnsservers", f"127.0.0.1:{free_port()}\n127.0.0.1:{bad.port}\n127.0.0.1:{good.port}\n")
        with rspawn(world.home) as spawner:
            assert spawner.result(BOB).letter == b"K"


THREE = {
    "x.test MX": answer("10 a.test.", "20 b.test.", "30 c.test."),
    "a.test A": answer("127.0.0.2"),
    "b.test A": answer("127.0.0.3"),
    "c.test A": answer("127.0.0.4"),
}


@pytest.mark.parametrize("greeting", ["450 4.3.2 busy", "554 5.7.1 no", "!close", "junk", "421 bye"])
def test_the_next_exchanger(world: World, greeting: str) -> None:
    """Refused, or turned away at the greeting: the next one gets the mail, in the order of preference."""
    with world.mx("127.0.0.3", greeting=[greeting]) as busy, world.mx("127.0.0.4") as good:
        with world.spawner(THREE) as (spawner, _):
            result = spawner.result(BOB)
        assert (result.letter, result.mta) == (b"K", b"c.test")
        assert (busy.sessions(), good.sessions()) == (1, 1)


def test_turned_away_by_all(world: World) -> None:
    """When every exchanger greets with 5xx it is for ever (RFC 5321 3.1, RFC 7504); not if one of them is silent."""
    one = {"x.test MX": answer("10 a.test."), "a.test A": answer("127.0.0.2")}
    both = {"y.test MX": answer("10 a.test.", "20 b.test."), "b.test A": answer("127.0.0.3")}
    with world.mx("127.0.0.2", greeting=["521 5.3.2 no mail here"]), world.spawner(one | both) as (spawner, _):
        result = spawner.result(BOB)
        assert (result.letter, result.status) == (b"D", b"5.3.2")
        assert spawner.result(b"bob@y.test").letter == b"Z"


def test_the_best_first(world: World) -> None:
    """The best preference is tried first; once it has begun a transaction, its word is final (qmail.md 14.4)."""
    with world.mx("127.0.0.2", MAIL=["450 4.7.1 greylisted"]), world.mx("127.0.0.3") as other:
        with world.spawner(THREE) as (spawner, _):
            result = spawner.result(BOB)
        assert (result.letter, result.mta, other.sessions()) == (b"Z", b"a.test", 0)


def test_all_dead(world: World) -> None:
    """When no address can be connected to, the destination is dead; there is a limit to how many are tried."""
    world.home.control("remoteaddresses", "2\n")
    with world.spawner(THREE) as (spawner, _):
        outcome = spawner.deliver(BOB)
    assert outcome.health is Health.DEAD
    assert b"127.0.0.2" in outcome.results[0].text and b"127.0.0.4" not in outcome.results[0].text


def test_ourselves(world: World) -> None:
    """Mail is never handed to ourselves, nor to whom we are better than (RFC 5321 5.1); smtproutes may do that."""
    world.home.control("notipme", "127.0.0.2\n")
    us = {**THREE, "b.test A": answer("127.0.0.3")}
    with world.mx("127.0.0.3") as third, world.spawner(us) as (spawner, _):
        assert spawner.deliver(BOB).health is Health.DEAD  # only a.test is better than we are, and nobody is there
        assert third.sessions() == 0
        world.home.control("smtproutes", f"x.test:b.test:{world.port}\n::{world.port}\n")
        with rspawn(world.home) as another:
            assert another.result(BOB).letter == b"K"


@pytest.mark.parametrize(
    ("entries", "letter", "status"),
    [
        ({"x.test A": answer("127.0.0.1")}, b"D", b"5.4.6"),
        ({"x.test MX": answer("5 a.test."), "a.test A": answer("127.0.0.2", "127.0.0.1")}, b"D", b"5.4.6"),
        ({"x.test MX": answer("5 ill.test.", "10 a.test."), "ill.test A": SERVFAIL, "a.test A": answer("127.0.0.1")},
         b"Z", b"4.4.3"),
    ],
)  # fmt: skip
def test_we_are_the_best(world: World, entries: Entries, letter: bytes, status: bytes) -> None:
    """A domain that is ours by DNS only bounces; unless a better exchanger just cannot be looked up."""
    (world.home.folder / "control" / "notipme").unlink()
    with world.spawner(entries) as (spawner, _):
        result = spawner.result(BOB)
        assert (result.letter, result.status) == (letter, status)
        literal = spawner.result(b"bob@[127.0.0.1]")
        assert (literal.letter, literal.status) == (b"D", b"5.4.6")


def test_literals(world: World) -> None:
    """An address literal is an address, and DNS is not asked."""
    with world.mx("::1"), world.mx(), world.spawner({}) as (spawner, dns):
        for host in (b"[127.0.0.1]", b"127.0.0.1", b"[IPv6:::1]"):
            assert spawner.result(b"bob@" + host).letter == b"K"
        assert spawner.result(b"bob@[nonsense]").status == b"5.1.2"
        assert dns.asked() == []


def test_international_domains(world: World) -> None:
    """A domain in UTF-8 is looked up, and sent, in A-labels."""
    name = "xn--bcher-kva.test"
    with world.mx() as mx, world.spawner({f"{name} A": answer("127.0.0.1")}) as (spawner, dns):
        assert spawner.result("bob@bücher.test".encode()).letter == b"K"
        assert f"{name} MX" in dns.asked()
        assert f"RCPT TO:<bob@{name}>" in mx.lines()


@pytest.mark.parametrize(("ttl", "times"), [(300, 1), (0, 2)])
def test_answers_are_kept(world: World, ttl: int, times: int) -> None:
    """DNS is asked once as long as its answer is good, also by the next worker."""
    world.home.control("remotemessages", "1\n")
    entries = {"x.test MX": answer("10 a.test.", ttl=ttl), "a.test A": answer("127.0.0.1", ttl=ttl)}
    with world.mx() as mx, world.spawner(entries) as (spawner, dns):
        assert spawner.result(BOB).letter == spawner.result(BOB).letter == b"K"
        assert mx.sessions() == 2
        assert dns.asked().count("x.test MX") == times


def test_families(world: World) -> None:
    """control/ipfamily says which addresses are tried, and in which order."""
    both = {
        "x.test A": answer("127.0.0.1"),
        "x.test AAAA": answer("::1"),
        "y.test A": answer("127.0.0.1"),
        "y.test AAAA": answer("::1"),
    }
    world.home.control("ipfamily", "x.test:64\ny.test:4\n")
    with world.mx() as four, world.mx("::1") as six, world.spawner(both) as (spawner, dns):
        assert spawner.result(BOB).text.startswith(b"::1 ")
        assert spawner.result(b"bob@y.test").text.startswith(b"127.0.0.1 ")
        assert (four.sessions(), six.sessions()) == (1, 1)
        assert "y.test AAAA" not in dns.asked()


def test_a_relay_without_address(world: World) -> None:
    """A relay of smtproutes that does not exist is our mistake: mail waits."""
    world.home.control("smtproutes", f"x.test:gone.test:{world.port}\n")
    with world.spawner({}) as (spawner, _):
        result = spawner.result(BOB)
    assert result.letter == b"Z" and b"smtproutes" in result.text


def test_a_hundred_exchangers(world: World) -> None:
    """However many records a stranger's domain has, so many are looked at and no more."""
    records = [f"{n} m{n}.test." for n in range(100)]
    entries = {"x.test MX": answer(*records, **DO["truncate"]), "m3.test A": answer("127.0.0.1")}
    with world.mx(), world.spawner(entries) as (spawner, dns):
        assert spawner.result(BOB).letter == b"K"
        assert len([line for line in dns.asked() if line.endswith(" A")]) <= 20
