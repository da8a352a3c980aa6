"""REQUIRETLS and TLS-Required: No (RFC 8689): in, through the queue, out, and back as a bounce."""

import json
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qm.wire.delivery import Result
from tests.black.test_remote_dane import BOB, DaneWorld
from tests.black.test_remote_sts import StsWorld, answer, policy
from tests.harness.certificates import Authority, tlsa
from tests.harness.outbound import read_report
from tests.harness.peers import ScriptedMx, free_port
from tests.harness.postfix import Postfix
from tests.harness.rspawn import rspawn
from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.tlspeers import OFFER, PLAIN, TlsWorld, start

TAKES_ALL = """\
mydestination = x.test
local_recipient_maps =
local_transport = discard:nowhere
smtpd_tls_security_level = may
smtpd_tls_chain_files = {chain}
"""
ANN = f"ann@{DOMAIN}"
KEEPS = "250-mx.test\r\n250-PIPELINING\r\n250 REQUIRETLS"
Make = Callable[[], Suite]


@pytest.fixture
def dane(tmp_path: Path) -> DaneWorld:
    return DaneWorld(tmp_path)


@pytest.fixture
def sts(tmp_path: Path) -> StsWorld:
    return StsWorld(tmp_path)


def mails(mx: ScriptedMx) -> list[str]:
    return [line for line in mx.lines() if line.startswith("MAIL")]


def deliver(world: DaneWorld, entries: dict[str, Any], flags: bytes, sender: bytes = b"ann@me.example") -> Result:
    with world.spawner(entries) as (spawner, _):
        return spawner.result(BOB, flags=flags, sender=sender)


def test_dane_is_good(dane: DaneWorld) -> None:
    """A server that TLSA records vouch for and that offers REQUIRETLS gets the message, and the requirement with it."""
    with dane.at_port(EHLO_TLS=[KEEPS]) as mx:
        assert deliver(dane, dane.zone(tlsa(dane.certificate)), b"Q").letter == b"K"
        assert mails(mx) == ["MAIL FROM:<ann@me.example> REQUIRETLS"]


def test_a_signed_name_is_good(dane: DaneWorld) -> None:
    """Without TLSA records a name from signed DNS is compared with a certificate that a root vouches for."""
    unsigned = {"TLSA": {"rcode": "NXDOMAIN", "ad": True}}
    with dane.at_port(EHLO_TLS=[KEEPS]) as mx:
        assert deliver(dane, dane.zone(**unsigned), b"Q").letter == b"K"
        assert mails(mx) == ["MAIL FROM:<ann@me.example> REQUIRETLS"]
    with dane.at_port(dane.ca.issue("y.test"), EHLO_TLS=[KEEPS]) as mx:
        result = deliver(dane, dane.zone(**unsigned), b"Q")
        assert (result.letter, result.status, mails(mx)) == (b"D", b"5.7.10", [])


@pytest.mark.parametrize("mode", ["enforce", "testing"])
def test_an_sts_policy_is_good(sts: StsWorld, mode: str) -> None:
    """A policy names the host, in whatever mode; its certificate must be right even in testing."""
    with sts.https(answer(policy(mode))), sts.at_port(EHLO_TLS=[KEEPS]) as mx:
        assert deliver(sts, sts.names(), b"Q").letter == b"K"
        assert mails(mx) == ["MAIL FROM:<ann@me.example> REQUIRETLS"]
    with sts.https(answer(policy(mode))), sts.at_port(sts.ca.issue("y.test"), EHLO_TLS=[KEEPS]) as mx:
        assert (deliver(sts, sts.names(), b"Q").letter, mails(mx)) == (b"D", [])


def test_dns_alone_is_not_good(sts: StsWorld) -> None:
    """A name that only unsigned DNS tells is no name: nobody is connected to, and the sender hears 5.7.10."""
    with sts.https(answer(policy("none"))), sts.at_port(EHLO_TLS=[KEEPS]) as mx:
        result = deliver(sts, sts.names(), b"Q")
        assert (result.letter, result.status, mx.lines()) == (b"D", b"5.7.10", [])


NOT_ENOUGH: dict[str, tuple[dict[str, Any], bytes, bytes]] = {
    "no REQUIRETLS": ({"EHLO_TLS": [PLAIN]}, b"D", b"5.7.30"),
    "only in clear": ({"EHLO": [OFFER.replace("250-P", "250-REQUIRETLS\r\n250-P")]}, b"D", b"5.7.30"),
    "no STARTTLS": ({"EHLO": [PLAIN]}, b"D", b"5.7.10"),
    "no STARTTLS now": ({"STARTTLS": ["454 4.7.0 later"]}, b"Z", b"4.7.5"),
    "never": ({"STARTTLS": ["502 5.5.1 what"]}, b"D", b"5.7.10"),
    "busy": ({"greeting": ["421 4.3.2 busy"]}, b"Z", b"4.3.2"),
}


@pytest.mark.parametrize("kind", NOT_ENOUGH)
def test_what_is_not_enough(dane: DaneWorld, kind: str) -> None:
    """A server that cannot keep the requirement gets nothing; it is for ever only where it is not for now."""
    script, letter, status = NOT_ENOUGH[kind]
    with dane.at_port(**script) as mx:
        result = deliver(dane, dane.zone(tlsa(dane.certificate)), b"Q")
        assert (result.letter, result.status, mails(mx)) == (letter, status, []), result.text
        if status == b"5.7.30":
            assert b"REQUIRETLS support required. (#5.7.30)" in result.text


def test_lookups_that_fail_are_for_now(dane: DaneWorld) -> None:
    """TLSA records that cannot be looked up are waited for, as without a requirement."""
    with dane.at_port(EHLO_TLS=[KEEPS]) as mx:
        result = deliver(dane, dane.zone(TLSA={"rcode": "SERVFAIL"}), b"Q")
        assert (result.letter, result.status, mails(mx)) == (b"Z", b"4.7.5", [])


def test_a_bounce_is_not_lost(dane: DaneWorld) -> None:
    """A null sender goes to whomever there is (RFC 8689 5); the requirement goes along where it can be kept."""
    for script, said in (({"EHLO_TLS": [PLAIN]}, ""), ({"EHLO_TLS": [KEEPS]}, " REQUIRETLS")):
        with dane.at_port(**script) as mx:
            assert deliver(dane, dane.zone(tlsa(dane.certificate)), b"Q", b"").letter == b"K"
            assert mails(mx) == [f"MAIL FROM:<>{said}"]


def test_nobody_is_asked_to_keep_what_strangers_may_read(tmp_path: Path) -> None:
    """Under TLS with whomever the requirement of a bounce is not passed on: it would be a promise of nobody."""
    world = TlsWorld(tmp_path)
    with world.mx(EHLO_TLS=[KEEPS]) as mx:
        with rspawn(world.home) as spawner:
            assert spawner.result(BOB, flags=b"Q", sender=b"").letter == b"K"
        assert mails(mx) == ["MAIL FROM:<>"]


def test_a_session_for_less_is_not_used(dane: DaneWorld) -> None:
    """A kept session that was made for other mail does not carry a message with the requirement."""
    unsigned = dane.zone(TLSA={"rcode": "NXDOMAIN", "ad": True})
    with dane.at_port(dane.ca.issue("y.test"), EHLO_TLS=[KEEPS]) as mx, dane.spawner(unsigned) as (spawner, _):
        assert spawner.result(BOB).letter == b"K"
        assert spawner.result(BOB, flags=b"Q").status == b"5.7.10"
        assert mails(mx) == ["MAIL FROM:<ann@me.example>"]


def test_a_policy_waived(sts: StsWorld) -> None:
    """TLS-Required: No puts the domain's own policy aside, and not control/tlspolicy."""
    with sts.https(answer(policy())), sts.at_port(EHLO=[PLAIN]) as mx:
        assert deliver(sts, sts.names(), b"").letter == b"Z"
        assert deliver(sts, sts.names(), b"q").letter == b"K"
        sts.policy("x.test:verify")
        assert deliver(sts, sts.names(), b"q").letter == b"Z"
        assert len(mails(mx)) == 1


# With the whole suite: mail for x.test goes to a relay that an authority of the test's own vouches for


class Road:
    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite = suite
        authority = Authority(folder)
        self.certificate = authority.issue("x.test")
        suite.control("tlsroots", "roots.pem\n")
        (suite.home / "roots.pem").write_bytes(authority.path.read_bytes())
        suite.control("tlspolicy", f"{HOST}:verify x.test\n")

    def route(self, port: int) -> None:
        self.suite.control("smtproutes", f"x.test:{HOST}:{port}\n")
        self.suite.start()

    def submit(self, *options: str, header: bytes = b"", to: str = "bob@x.test") -> None:
        with smtplib.SMTP_SSL(HOST, self.suite.port("submits"), context=trusting()) as smtp:
            smtp.login("ann", "secret")
            assert smtp.has_extn("requiretls")
            smtp.sendmail(ANN, [to], b"Subject: secret\r\n" + header + b"\r\nbody of it\r\n", options)


@pytest.fixture
def road(make_suite: Make, tmp_path: Path) -> Road:
    return Road(make_suite(), tmp_path)


@pytest.fixture
def keeper(road: Road, tmp_path: Path) -> Iterator[ScriptedMx]:
    """One that offers REQUIRETLS."""
    script = {"EHLO": [OFFER], "EHLO+TLS": [KEEPS], "STARTTLS": [start(road.certificate)]}
    with ScriptedMx(tmp_path, script) as mx:
        road.route(mx.port)
        yield mx


def test_the_whole_road(road: Road, keeper: ScriptedMx) -> None:
    """The requirement comes in with MAIL and goes out with MAIL; nothing is said where nothing was asked for."""
    for options in ((), ("REQUIRETLS",)):
        road.submit(*options)
    road.suite.wait_for(lambda: len(keeper.texts()) == 2, "both messages")
    assert sorted(mails(keeper)) == [f"MAIL FROM:<{ANN}>", f"MAIL FROM:<{ANN}> REQUIRETLS"]


def test_it_is_offered_under_tls_only(road: Road, keeper: ScriptedMx) -> None:
    """In clear the parameter is unknown; behind STARTTLS it is good for strangers, too."""
    with road.suite.smtp() as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("requiretls")
        assert smtp.mail("x@elsewhere.example", ["REQUIRETLS"])[0] == 555
        smtp.starttls(context=trusting())
        smtp.ehlo()
        assert smtp.has_extn("requiretls")
        assert smtp.mail("x@elsewhere.example", ["REQUIRETLS=1"])[0] == 501
        assert smtp.mail("x@elsewhere.example", ["REQUIRETLS"])[0] == 250


def test_what_is_forwarded_keeps_it(road: Road, keeper: ScriptedMx) -> None:
    """A line with & and programs that forward, by QMTLS, pass the requirement on (RFC 8689 6)."""
    road.suite.dot_qmail("ann", "&bob@x.test\n|forward eve@x.test\n|condredirect sam@x.test true\n")
    with road.suite.smtp() as smtp:
        smtp.starttls(context=trusting())
        smtp.sendmail("x@elsewhere.example", [ANN], b"Subject: x\r\n\r\n", ["REQUIRETLS"])
    road.suite.wait_for(lambda: len(keeper.texts()) == 3, "all three messages")
    assert mails(keeper) == ["MAIL FROM:<x@elsewhere.example> REQUIRETLS"] * 3


def test_the_bounce_keeps_it(road: Road, keeper: ScriptedMx) -> None:
    """A bounce of a message with the requirement has it too, and the header of the message, whatever RET says."""
    road.suite.dot_qmail("ann", "&bob@x.test\n")
    road.suite.dot_qmail("alias", "|exit 100\n", "-closed")
    road.submit("REQUIRETLS", "RET=FULL", to=f"closed@{DOMAIN}")
    road.suite.wait_for(lambda: keeper.texts(), "the bounce")
    assert mails(keeper) == ["MAIL FROM:<> REQUIRETLS"]
    assert "Subject: secret" in keeper.texts()[0] and "body of it" not in keeper.texts()[0]


@pytest.mark.needs("postfix")
@pytest.mark.needs_root
def test_postfix_does_not_offer_it(road: Road, open_folder: Path) -> None:
    """Postfix behind a good certificate takes other mail and not this: 5.7.30 for the sender, at once."""
    port, home = free_port(), open_folder / "postfix"
    open_folder.mkdir(exist_ok=True)
    chain = open_folder / "chain.pem"
    chain.write_bytes(road.certificate.read_bytes())
    postfix = Postfix(home, TAKES_ALL.format(chain=chain), f"{HOST}:{port} inet n - n - - smtpd\n")
    postfix.start()
    try:
        road.route(port)
        road.submit()
        road.suite.wait_for_log(r"delivery \d+: success: ")
        road.submit("REQUIRETLS")
        report = read_report(road.suite.wait_for_mail()[0])
    finally:
        postfix.stop()
    assert report.recipients[0]["Status"] == "5.7.30"
    assert "REQUIRETLS support required" in report.people and b"body of it" not in report.text
    assert report.returned["Subject"] == "secret" or "Subject: secret" in str(report.returned)


def test_the_queue_tells(road: Road) -> None:
    """Who looks into the queue sees what a message asks for."""
    road.suite.control("concurrencyremote", "0\n")
    road.route(1)
    road.submit("REQUIRETLS")
    road.submit(header=b"TLS-Required: No\r\n")
    road.submit("REQUIRETLS", header=b"TLS-Required: no\r\n")
    road.submit(header=b"TLS-Required: yes\r\n")
    done = road.suite.wait_for(lambda: (d := road.suite.run("qm-qread", "--json")).stdout.count(b"\n") == 4 and d)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["tls"] for message in shown] == ["required", "optional", "required", ""]
    said = road.suite.run("qm-queue-show", shown[0]["id"]).stdout
    assert b"asked for: 8BITMIME REQUIRETLS\n" in said or b"asked for: REQUIRETLS\n" in said, said
    plain = road.suite.run("qm-qread").stdout
    assert plain.count(b">  requiretls\n") == 2, plain


def test_inject_reads_the_header(road: Road) -> None:
    """A local user's TLS-Required: No is in the envelope, and QMTLS is a requirement."""
    road.suite.control("concurrencyremote", "0\n")
    road.route(1)
    for text, more in ((b"TLS-Required: No\n\n", {}), (b"\n", {"QMTLS": "required"}), (b"\n", {})):
        assert road.suite.run("qm-inject", "bob@x.test", input=text, env=more).returncode == 0
    done = road.suite.wait_for(lambda: (d := road.suite.run("qm-qread", "--json")).stdout.count(b"\n") == 3 and d)
    assert [json.loads(line)["tls"] for line in done.stdout.splitlines()] == ["optional", "required", ""]
