"""DANE with a resolver that validates: Debian's unbound, zones that are signed, not signed, and forged (RFC 7672)."""

import random
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from qm.wire.delivery import Result
from tests.black.test_postfix_tls import RECEIVER
from tests.black.test_remote_dane import OTHER, DaneWorld
from tests.harness.certificates import tlsa
from tests.harness.outbound import ANN, Outbound
from tests.harness.postfix import Postfix
from tests.harness.rspawn import rspawn
from tests.harness.suite import DOMAIN, Suite
from tests.harness.tlspeers import PLAIN
from tests.harness.validator import Domain, Unbound

pytestmark = pytest.mark.needs("unbound")
HOST: Final = "@ 300 MX 10 mx\nmx 300 A 127.0.0.1\n"
SENDER: Final = """\
mydestination =
relayhost = [mail.x.test]:{port}
smtp_tls_security_level = dane
smtp_dns_support_level = dnssec
smtp_host_lookup = dns
smtp_tls_loglevel = 1
minimal_backoff_time = 1h
"""
_BIND: Final = 'mount --bind "$1" /etc/resolv.conf || exit 1; shift; exec "$@"'


class ValidatedWorld(DaneWorld):
    """rspawn, its resolver, and a domain for each thing that DNSSEC can say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.at = f"_{self.port}._tcp.mx"
        self.home.control("tlspolicy", "plain-dane.test:dane\nnone-dane.test:dane\n")
        self.unbound = Unbound(folder / "unbound", self._domains())
        self.home.control("dnsservers", f"127.0.0.1:{self.unbound.port}\n")
        self.home.control("smtproutes", f"::{self.port}\n")

    def _domains(self) -> dict[str, Domain]:
        good = HOST + f"{self.at} 300 TLSA {tlsa(self.certificate)}\n"
        wrong = HOST + f"{self.at} 300 TLSA {OTHER}\n"
        alias = f"@ 300 MX 10 mx\nmx 300 CNAME mx.x.test.\n{self.at} 300 TLSA {OTHER}\n"
        there = HOST + f"{self.at} 300 TXT here\n"
        found = {"x": Domain(good), "wrong": Domain(wrong), "alias": Domain(alias), "empty": Domain(there)}
        for name in ("none", "none-dane"):
            found[name] = Domain(HOST)
        for name in ("plain", "plain-dane"):
            found[name] = Domain(wrong, signed=False, promised=False)
        found["island"] = Domain(wrong, promised=False)
        found["elsewhere"] = Domain("@ 300 MX 10 mx.plain.test.\n")
        found["stripped"] = Domain(HOST, signed=False)
        found["expired"] = Domain(good, signed_for=(-9, -2))
        found["early"] = Domain(good, signed_for=(2, 9))
        forged = {"mx": "@ MX", "a": "mx A", "tlsa": f"{self.at} TLSA", "denial": "mx NSEC", "key": "@ DNSKEY"}
        for kind, what in forged.items():
            found[f"forged-{kind}"] = Domain(HOST if kind == "denial" else good, forged=(what,))
        return {f"{name}.test": domain for name, domain in found.items()}

    def send(self, domain: str) -> Result:
        with rspawn(self.home) as spawner:
            return spawner.result(f"bob@{domain}.test".encode())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValidatedWorld]:
    world = ValidatedWorld(tmp_path_factory.mktemp("world"))
    yield world
    world.unbound.stop()


@pytest.mark.parametrize("domain", ["x", "alias"])
def test_verified(world: ValidatedWorld, domain: str) -> None:
    """What is signed all the way to the key counts; an exchanger that is another's name has that one's records."""
    assert world.unbound.ask(f"{domain}.test. MX") == "NOERROR AD"
    with world.at_port() as mx:
        result = world.send(domain)
        assert len(mx.texts()) == 1
    assert result.text.endswith(b"The connection had TLSv1.3 TLS_AES_256_GCM_SHA384, DANE.\n"), result.text


def test_another_key(world: ValidatedWorld) -> None:
    """A server whose key is not that of its signed record gets no mail, in clear or otherwise."""
    with world.at_port() as mx:
        result = world.send("wrong")
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert (result.letter, result.status) == (b"Z", b"4.7.5")
    with world.at_port(EHLO=[PLAIN]) as mx:
        assert world.send("wrong").letter == b"Z"
        assert not any(line.startswith("MAIL") for line in mx.lines())


@pytest.mark.parametrize("domain", ["plain", "island", "elsewhere", "none", "empty"])
def test_no_demand(world: ValidatedWorld, domain: str) -> None:
    """Records that no chain of keys leads to, and those that are proven not to be there, demand nothing."""
    with world.at_port():
        assert world.send(domain).text.endswith(b", may.\n")
    with world.at_port(EHLO=[PLAIN]):
        assert world.send(domain).letter == b"K"


@pytest.mark.parametrize("domain", ["plain-dane", "none-dane"])
def test_our_policy_demands_it(world: ValidatedWorld, domain: str) -> None:
    """Under `dane` in tlspolicy the same are deferred, and nobody is connected to."""
    with world.at_port() as mx:
        result = world.send(domain)
        assert mx.sessions() == 0
    assert (result.letter, b"it has no TLSA records that count" in result.text) == (b"Z", True)


FORGED: Final = {
    "stripped": "MX",
    "expired": "MX",
    "early": "MX",
    "forged-mx": "MX",
    "forged-key": "MX",
    "forged-a": "A",
    "forged-tlsa": "TLSA",
    "forged-denial": "TLSA",
}


@pytest.mark.parametrize("domain", FORGED)
def test_forged(world: ValidatedWorld, domain: str) -> None:
    """What unbound finds forged, old or stripped of signatures is a deferral, and nobody is connected to."""
    name = {"MX": "", "A": "mx.", "TLSA": f"{world.at}."}[FORGED[domain]]
    assert world.unbound.ask(f"{name}{domain}.test. {FORGED[domain]}") == "SERVFAIL"
    with world.at_port() as mx:
        result = world.send(domain)
        assert mx.sessions() == 0
    assert result.letter == b"Z", result.text


def test_forged_is_not_trusted_by_others(world: ValidatedWorld) -> None:
    """Nor is it where unbound is not believed about DNSSEC: it gives no address that is forged."""
    world.home.control("dnstrusted", "192.0.2.0/24\n")
    try:
        with world.at_port() as mx:
            assert [world.send(domain).letter for domain in ("forged-mx", "forged-a")] == [b"Z", b"Z"]
            assert mx.sessions() == 0
            assert world.send("wrong").text.endswith(b", may.\n")
    finally:
        (world.home.folder / "control/dnstrusted").unlink()


def test_the_whole_road(world: ValidatedWorld, make_suite: Callable[[], Suite]) -> None:
    """A message in the queue leaves by DANE; one for a server with another key stays, and the log says why."""
    suite = make_suite()
    suite.control("notipme", "127.0.0.0/8\n127.0.0.1\n")
    with world.at_port() as mx:
        out = Outbound(suite, dnsservers=f"127.0.0.1:{world.unbound.port}", smtproutes=f"::{world.port}")
        out.send("bob@x.test")
        assert out.ended("bob@x.test") == "success"
        out.send("bob@wrong.test")
        assert out.ended("bob@wrong.test") == "deferral"
        assert len(mx.texts()) == 1
    suite.wait_for_log("its_certificate_is_not_that_of_its_TLSA_records")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that Postfix's users reach."""
    folder = Path(tempfile.mkdtemp(prefix="qm-postfix-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix_receives(world: ValidatedWorld, place: Path) -> None:
    """Postfix with the key of the record gets the mail, by DANE; asked to be another's, it gets none."""
    certificate = shutil.copy(world.certificate, place / "chain.pem")
    domains = RECEIVER.format(level="encrypt", certificate=certificate).replace("x.test", "x.test, wrong.test")
    postfix = Postfix(place / "postfix", domains, f"127.0.0.1:{world.port} inet n - n - - smtpd\n").start()
    try:
        result = world.send("x")
        assert (result.letter, result.text[-7:]) == (b"K", b" DANE.\n"), result.text
        assert world.send("wrong").status == b"4.7.5"
    finally:
        postfix.stop()


# Postfix as the client: it has its resolver from /etc/resolv.conf, at port 53


def _free_address() -> str:
    """One of loopback's where nobody has port 53."""
    while True:
        address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        with socket.socket(type=socket.SOCK_DGRAM) as probe, socket.socket() as listener:
            try:
                for sock in (probe, listener):
                    sock.bind((address, 53))
            except OSError:
                continue
            return address


class Elsewhere:
    """Commands that see unbound in /etc/resolv.conf, who knows the suite's port as one of mail.x.test and others."""

    def __init__(self, folder: Path, suite: Suite) -> None:
        port, record = suite.smtp_port, tlsa(suite.home / "control/servercert.pem")
        host = f"mail 300 A 127.0.0.1\n_{port}._tcp.mail 300 TLSA "
        domains = {
            "x.test": Domain(host + record),
            "wrong.test": Domain(host + OTHER),
            "plain.test": Domain(host + OTHER, signed=False, promised=False),
            "forged.test": Domain(host + record, forged=(f"_{port}._tcp.mail TLSA",)),
        }
        self.unbound = Unbound(folder / "unbound", domains, _free_address(), 53)
        (folder / "resolv.conf").write_text(f"nameserver {self.unbound.address}\noptions trust-ad edns0\n")
        self.prefix = ["unshare", "--mount", "sh", "-c", _BIND, "sh", str(folder / "resolv.conf")]
        if subprocess.run([*self.prefix, "true"], capture_output=True, check=False).returncode:
            self.unbound.stop()
            pytest.skip("needs mount namespaces")

    def finger(self, name: str, port: int) -> str:
        argv = ["posttls-finger", "-c", "-l", "dane", "-t", "30", f"[mail.{name}.test]:{port}"]
        done = subprocess.run(
            [*self.prefix, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout


@pytest.fixture
def elsewhere(suite: Suite, open_folder: Path) -> Iterator[Elsewhere]:
    made = Elsewhere(open_folder, suite)
    yield made
    made.unbound.stop()


@pytest.mark.needs_root
@pytest.mark.needs("posttls-finger", "unshare")
def test_posttls_finger(suite: Suite, elsewhere: Elsewhere) -> None:
    """Postfix's own client finds our key by DANE, and sees what is another's, unsigned and forged."""
    assert "Verified TLS connection established to mail.x.test[127.0.0.1]" in elsewhere.finger("x", suite.smtp_port)
    assert "no matching DANE TLSA records" in elsewhere.finger("wrong", suite.smtp_port)
    assert "Untrusted TLS connection" in elsewhere.finger("plain", suite.smtp_port)
    assert "TLSA lookup error" in elsewhere.finger("forged", suite.smtp_port)


@pytest.mark.needs_root
@pytest.mark.needs("postfix", "unshare")
def test_postfix_sends(suite: Suite, elsewhere: Elsewhere, place: Path) -> None:
    """A Postfix that asks for DANE verifies us and hands its mail over."""
    postfix = Postfix(place / "postfix", SENDER.format(port=suite.smtp_port), prefix=elsewhere.prefix).start()
    try:
        postfix.send(b"Subject: x\n\nhello\n", "-f", ANN.replace("ann", "bob"), f"ann@{DOMAIN}")
        (mail,) = suite.wait_for_mail()
        assert re.search(rb"with ESMTPS \(TLSv1\.3 ", mail)
        assert "Verified TLS connection established to mail.x.test" in postfix.log()
    finally:
        postfix.stop()
