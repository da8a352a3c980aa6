"""rspawn's workers and DANE, with a DNS answerer that says what DNSSEC vouches for (RFC 7672)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qm.wire.delivery import Result
from tests.harness.certificates import DAY, Authority, tlsa
from tests.harness.peers import DnsAnswerer, ScriptedMx, free_port
from tests.harness.rspawn import Rspawn, rspawn
from tests.harness.tlspeers import PLAIN, TlsWorld

BOB = b"bob@x.test"
OTHER = "3 1 1 " + "00" * 32


def signed(*records: str, **more: Any) -> dict[str, Any]:
    return {"answer": list(records), "ad": True, **more}


class DaneWorld(TlsWorld):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificate = self.ca.issue("mx.x.test")
        self.port = free_port()
        self.home.control("notipme", "127.0.0.0/8\n127.0.0.1\n")
        self.home.control("timeoutdns", "2\n")

    def at_port(self, certificate: Path | None = None, **script: list[Any]) -> ScriptedMx:
        mx = self.mx(certificate, address=f"127.0.0.1/{self.port}", **script)
        self.home.control("smtproutes", f"::{self.port}\n")
        return mx

    def zone(self, *records: str, **changed: Any) -> dict[str, Any]:
        """x.test with one exchanger and its TLSA records, all signed but for what is *changed*."""
        entries = {"MX": signed("10 mx.x.test."), "A": signed("127.0.0.1"), "TLSA": signed(*records)}
        entries |= changed
        names = {"MX": "x.test MX", "A": "mx.x.test A", "TLSA": f"_{self.port}._tcp.mx.x.test TLSA"}
        return {names.get(key, key): entry for key, entry in entries.items()}

    @contextmanager
    def spawner(self, entries: Mapping[str, Any]) -> Iterator[tuple[Rspawn, DnsAnswerer]]:
        with DnsAnswerer(self.folder, entries) as dns:
            self.home.control("dnsservers", f"127.0.0.1:{dns.port}\n")
            with rspawn(self.home) as spawner:
                yield spawner, dns

    def deliver(self, *records: str, **changed: Any) -> Result:
        with self.spawner(self.zone(*records, **changed)) as (spawner, _):
            return spawner.result(BOB)


@pytest.fixture
def world(tmp_path: Path) -> DaneWorld:
    return DaneWorld(tmp_path)


FORMS = [(usage, selector, matching) for usage in (2, 3) for selector in (0, 1) for matching in (0, 1, 2)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form(world: DaneWorld, form: tuple[int, int, int]) -> None:
    """Both usages, both selectors, all matching types vouch for a server; one record that fits is enough."""
    record = tlsa(world.certificate, *form, place=1 if form[0] == 2 else 0)
    with world.at_port() as mx:
        result = world.deliver(OTHER, record)
        assert mx.handshakes()[0]["sni"] == "mx.x.test"
    assert result.text.endswith(b"The connection had TLSv1.3 TLS_AES_256_GCM_SHA384, DANE.\n"), result.text


def test_end_entity_has_no_name_and_no_dates(world: DaneWorld) -> None:
    """With usage 3 the key is all (RFC 7672 3.1.1)."""
    certificate = Authority(world.folder).issue("elsewhere.test", life=-DAY)
    with world.at_port(certificate):
        assert world.deliver(tlsa(certificate)).letter == b"K"


def test_next_hop_as_name(world: DaneWorld) -> None:
    """With usage 2 the domain's name in the certificate is as good as the exchanger's (RFC 7672 3.2.2)."""
    certificate = world.ca.issue("x.test")
    with world.at_port(certificate):
        assert world.deliver(tlsa(certificate, 2, 0, 1, place=1)).letter == b"K"


def test_anchor_that_is_not_sent(world: DaneWorld) -> None:
    """An anchor that stands whole in its record need not be in the chain; one of which only the key is there must."""
    certificate = world.ca.issue("mx.x.test", chain=False)
    with world.at_port(certificate):
        assert world.deliver(tlsa(world.ca.path, 2, 1, 0)).letter == b"Z"
        assert world.deliver(tlsa(world.ca.path, 2, 0, 0)).letter == b"K"


WRONG = {
    "other key": lambda world: (world.certificate, OTHER),
    "other name": lambda world: ((c := world.ca.issue("y.test")), tlsa(c, 2, 0, 1, place=1)),
    "expired": lambda world: ((c := world.ca.issue("mx.x.test", life=-DAY)), tlsa(c, 2, 0, 1, place=1)),
    "leaf as anchor": lambda world: (world.certificate, tlsa(world.certificate, 2, 1, 1)),
    "anchor as leaf": lambda world: (world.certificate, tlsa(world.certificate, 3, 1, 1, place=1)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_who_is_not_vouched_for_gets_nothing(world: DaneWorld, kind: str) -> None:
    """A server whose certificate fits no record gets no mail; the message waits."""
    certificate, record = WRONG[kind](world)
    with world.at_port(certificate) as mx:
        result = world.deliver(record)
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert (result.letter, result.status) == (b"Z", b"4.7.5")
    assert b"its certificate is not that of its TLSA records" in result.text


def test_no_starttls(world: DaneWorld) -> None:
    """Who has TLSA records must offer STARTTLS."""
    with world.at_port(EHLO=[PLAIN]) as mx:
        assert b"it does not offer STARTTLS" in world.deliver(tlsa(world.certificate)).text
        assert mx.texts() == []


UNUSABLE = ["0 0 1 " + "00" * 32, "1 1 1 " + "00" * 32, "3 2 1 " + "00" * 32, "3 1 9 00"]


def test_unusable_records(world: DaneWorld) -> None:
    """Records that none can use ask for TLS, and for nobody in particular (RFC 7672 2.2)."""
    with world.at_port():
        result = world.deliver(*UNUSABLE)
        assert (result.letter, result.text[-7:]) == (b"K", b" DANE.\n")
    with world.at_port(EHLO=[PLAIN]):
        assert world.deliver(*UNUSABLE).letter == b"Z"


UNPROVEN = {
    "MX": {"MX": {"answer": ["10 mx.x.test."]}},
    "A": {"A": {"answer": ["127.0.0.1"]}},
    "TLSA": {"TLSA": {"answer": [OTHER]}},
}


@pytest.mark.parametrize("what", UNPROVEN)
def test_what_dnssec_does_not_vouch_for_is_no_demand(world: DaneWorld, what: str) -> None:
    """If exchanger, address or records are not secure, the records do not count; under dane the message waits."""
    with world.at_port():
        assert world.deliver(OTHER, **UNPROVEN[what]).text.endswith(b", may.\n")
        world.policy("x.test:dane")
        result = world.deliver(OTHER, **UNPROVEN[what])
    assert (result.letter, b"it has no TLSA records that count" in result.text) == (b"Z", True)


def test_a_resolver_that_is_not_trusted(world: DaneWorld) -> None:
    """Who is not in control/dnstrusted says nothing about DNSSEC, and is not asked for TLSA records."""
    world.home.control("dnstrusted", "192.0.2.0/24\n")
    with world.at_port(), world.spawner(world.zone(OTHER)) as (spawner, dns):
        assert spawner.result(BOB).letter == b"K"
        assert not any(line.endswith("TLSA") for line in dns.asked())


def test_cname(world: DaneWorld) -> None:
    """A name that is another's has that one's records, if it has any (RFC 7672 2.2.2)."""
    entries = world.zone(OTHER) | {
        "mx.x.test CNAME": signed("real.test."),
        "real.test A": signed("127.0.0.1"),
        f"_{world.port}._tcp.real.test TLSA": signed(tlsa(world.certificate)),
    }
    with world.at_port() as mx, world.spawner(entries) as (spawner, _):
        assert b", DANE.\n" in spawner.result(BOB).text
        assert mx.handshakes()[0]["sni"] == "real.test"


def test_relay(world: DaneWorld) -> None:
    """A relay of smtproutes is looked up for TLSA records, too (RFC 7672 2.2.3)."""
    with world.at_port():
        world.home.control("smtproutes", f":mx.x.test:{world.port}\n")
        assert b", DANE.\n" in world.deliver(tlsa(world.certificate)).text


def test_our_own_policy_wins(world: DaneWorld) -> None:
    """A line of tlspolicy stands in the place of what the domain asks for."""
    world.policy("x.test:may")
    with world.at_port():
        assert world.deliver(OTHER).text.endswith(b", tlspolicy.\n")


def test_the_way_is_remembered_with_its_records(world: DaneWorld) -> None:
    """Records are asked for once, and hold for the next worker."""
    world.home.control("remotemessages", "1\n")
    with world.at_port() as mx, world.spawner(world.zone(tlsa(world.certificate))) as (spawner, dns):
        assert [b", DANE.\n" in spawner.result(BOB).text for _ in range(3)] == [True] * 3
        assert (len(mx.handshakes()), sum(line.endswith("TLSA") for line in dns.asked())) == (3, 1)
