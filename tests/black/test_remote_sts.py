"""rspawn's workers and MTA-STS: a DNS answerer, an HTTPS server and an authority of the test's own (RFC 8461)."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from qm.remote import stscache
from qm.wire.delivery import Result
from tests.black.test_remote_dane import BOB, DaneWorld
from tests.harness.barehome import ROLES
from tests.harness.certificates import DAY, Authority, tlsa
from tests.harness.peers import HttpsServer
from tests.harness.tlspeers import PLAIN

ID = "20261124"


def policy(mode: str = "enforce", *mx: str, age: int = 604800) -> str:
    patterns = "".join(f"mx: {name}\r\n" for name in mx or ("mx.x.test",))
    return f"version: STSv1\r\nmode: {mode}\r\n{patterns}max_age: {age}\r\n"


def answer(body: str, status: str = "200 OK", kind: str = "text/plain", **more: str) -> str:
    fields = {"Content-Type": kind, "Content-Length": str(len(body.replace("@@", "y" * 200000))), **more}
    return f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + f"\r\n{body}"


class StsWorld(DaneWorld):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.home.folder / "sts").mkdir()
        if os.geteuid() == 0:
            os.chown(self.home.folder / "sts", ROLES["qmailr"], 64000)
        self.site = self.ca.issue("mta-sts.x.test")
        self.log = ""

    def https(self, text: str, certificate: Path | None = None) -> HttpsServer:
        server = HttpsServer(self.folder, certificate or self.site, text)
        self.home.control("stsport", f"{server.port}\n")
        return server

    def names(self, *texts: str, **changed: Any) -> dict[str, Any]:
        return {
            "x.test MX": {"answer": ["10 mx.x.test."]},
            "mx.x.test A": {"answer": ["127.0.0.1"]},
            "mta-sts.x.test A": {"answer": ["127.0.0.1"]},
            "_mta-sts.x.test TXT": {"answer": [f'"{text}"' for text in texts or (f"v=STSv1; id={ID};",)]},
            **changed,
        }

    def send(self, *texts: str, **changed: Any) -> Result:
        with self.spawner(self.names(*texts, **changed)) as (spawner, _):
            return spawner.result(BOB)

    def keep(self, text: str, *, age_s: int = 0, name: str = ID) -> None:
        """Put a policy into the cache, as if it had been fetched then."""
        then_s = int(time.time()) - age_s
        (self.home.folder / "sts" / "x.test").write_text(f"{then_s} {then_s} {name}\n{text}")


@pytest.fixture
def world(tmp_path: Path) -> StsWorld:
    return StsWorld(tmp_path)


def test_enforce(world: StsWorld) -> None:
    """Who has the name and a good certificate gets mail; the policy is fetched once, and kept."""
    with world.https(answer(policy())) as https, world.at_port() as mx:
        for _ in range(2):
            assert world.send().text.endswith(b", MTA-STS.\n")
        assert https.asked() == ["GET /.well-known/mta-sts.txt HTTP/1.1"]
        assert [shake["sni"] for shake in mx.handshakes()] == ["mx.x.test"] * 2
    kept = world.home.folder / "sts" / "x.test"
    assert (kept.stat().st_mode & 0o777, kept.read_bytes().partition(b"\n")[2].decode()) == (0o600, policy())


def test_chunks(world: StsWorld) -> None:
    """A policy in chunks is one, too; a star in a pattern is a label."""
    body = policy("enforce", "*.x.test")
    text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    with world.https(f"{text}{len(body):x}\r\n{body}\r\n0\r\n\r\n"), world.at_port():
        assert world.send().text.endswith(b", MTA-STS.\n")


REFUSED = {
    "other exchanger": (policy("enforce", "mx.y.test"), "mx.x.test", b"MTA-STS policy does not name it"),
    "domain only": (policy("enforce", "x.test"), "mx.x.test", b"MTA-STS policy does not name it"),
    "other name": (policy(), "x.test", b"its certificate is for another name"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_enforce_refuses(world: StsWorld, kind: str) -> None:
    """A host that the policy does not name, or whose certificate is not right, gets nothing; the message waits."""
    text, name, why = REFUSED[kind]
    with world.https(answer(text)), world.at_port(world.ca.issue(name)) as mx:
        result = world.send()
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert (result.letter, result.status, why in result.text) == (b"Z", b"4.7.5", True), result.text


def test_enforce_needs_starttls(world: StsWorld) -> None:
    """A server without STARTTLS is not used, and the log tells it in the words of TLS reports."""
    with world.https(answer(policy())), world.at_port(EHLO=[PLAIN]), world.spawner(world.names()) as (spawner, _):
        assert b"it does not offer STARTTLS" in spawner.result(BOB).text
        assert (
            "qm-remote: tls domain=x.test policy=MTA-STS mx=mx.x.test ip=127.0.0.1 session=- "
            "result=starttls-not-supported\n" in spawner.log()
        )


@pytest.mark.parametrize("script", [{}, {"EHLO": [PLAIN]}])
def test_testing(world: StsWorld, script: dict[str, Any]) -> None:
    """In testing mode what would have failed is noted, and the mail delivered."""
    with world.https(answer(policy("testing"))), world.at_port(world.ca.issue("y.test"), **script) as mx:
        with world.spawner(world.names()) as (spawner, _):
            assert spawner.result(BOB).letter == b"K"
            assert "policy=MTA-STS-testing" in spawner.log()
        assert len(mx.texts()) == 1


def test_mode_none(world: StsWorld) -> None:
    """none is as without a policy."""
    with world.https(answer(policy("none"))), world.at_port():
        assert world.send().text.endswith(b", may.\n")


UNFETCHED = {
    "missing": answer("", "404 Not Found"),
    "redirect": answer(policy(), "302 Found", Location="https://127.0.0.1/"),
    "html": answer(policy(), kind="text/html"),
    "no policy": answer("version: STSv1\r\nmode: enforce\r\n"),
    "too large": answer(policy() + "x: " + "@@"),
    "no HTTP": "hello\r\n\r\n",
    "nothing": "",
}


@pytest.mark.parametrize("kind", UNFETCHED)
def test_a_policy_that_cannot_be_fetched(world: StsWorld, kind: str) -> None:
    """Without a policy from before there is none, and it is not asked for again at once; one from before holds."""
    with world.https(UNFETCHED[kind]) as https, world.at_port(world.ca.issue("y.test")):
        assert [world.send().letter for _ in range(2)] == [b"K", b"K"]
        assert len(https.asked()) == 1
        world.keep(policy(), age_s=1000, name="old")
        assert world.send().letter == b"Z"
        assert len(https.asked()) == 2


@pytest.mark.parametrize("kind", ["strange", "expired", "wrong name"])
def test_the_web_server_must_be_right(world: StsWorld, kind: str) -> None:
    """A policy from a server that nobody vouches for is none."""
    names = {"strange": Authority(world.folder).issue("mta-sts.x.test"), "wrong name": world.ca.issue("x.test")}
    certificate = names.get(kind) or world.ca.issue("mta-sts.x.test", life=-DAY)
    with world.https(answer(policy()), certificate) as https, world.at_port():
        assert world.send().text.endswith(b", may.\n")
        assert https.asked() == []


RECORDS = [("v=STSv1; id=a", "v=STSv1; id=b"), ("v=STSv2; id=a",), ("v=STSv1;",), ("v=STSv1; id=a.b",)]


@pytest.mark.parametrize("texts", RECORDS)
def test_records_that_do_not_count(world: StsWorld, texts: tuple[str, ...]) -> None:
    """Two records, or none of the right form, are no policy (RFC 8461 3.1)."""
    with world.https(answer(policy())) as https, world.at_port():
        assert world.send(*texts).text.endswith(b", may.\n")
        assert https.asked() == []


def test_a_new_id_is_a_new_policy(world: StsWorld) -> None:
    """A policy with another id than DNS tells is fetched again."""
    world.keep(policy("enforce", "mx.y.test"), age_s=1000, name="old")
    with world.https(answer(policy())), world.at_port():
        assert world.send().text.endswith(b", MTA-STS.\n")


def test_dane_outranks(world: StsWorld) -> None:
    """Where TLSA records decide, the MTA-STS policy is not asked for (RFC 8461 2)."""
    entries = world.names() | world.zone(tlsa(world.certificate))
    with world.https(answer(policy("enforce", "mx.y.test"))) as https, world.at_port():
        with world.spawner(entries) as (spawner, _):
            assert b", DANE.\n" in spawner.result(BOB).text
        assert https.asked() == []


def test_switched_off(world: StsWorld) -> None:
    """With 0 in control/stsport nobody is asked."""
    with world.https(answer(policy())), world.at_port():
        world.home.control("stsport", "0\n")
        with world.spawner(world.names()) as (spawner, dns):
            assert spawner.result(BOB).letter == b"K"
            assert not any("_mta-sts" in line for line in dns.asked())


def test_the_cache_cannot_lead_elsewhere(world: StsWorld) -> None:
    """A link in the place of a policy is not followed, when reading nor when writing."""
    target = world.folder / "target"
    target.write_text("untouched")
    (world.home.folder / stscache.DIRECTORY / "x.test").symlink_to(target)
    with world.https(answer(policy())), world.at_port():
        assert world.send().text.endswith(b", MTA-STS.\n")
    assert target.read_text() == "untouched"
