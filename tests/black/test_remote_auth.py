"""rspawn's workers and AUTH at relays: control/smtpauth, real servers, and relays that cheat."""

import base64
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from qm.wire.delivery import Health, Outcome, Result
from tests.harness.barehome import BareHome
from tests.harness.dovecot import Dovecot
from tests.harness.outbound import Outbound
from tests.harness.peers import DnsAnswerer, ScriptedMx, free_port
from tests.harness.postfix import Postfix
from tests.harness.rspawn import rspawn
from tests.harness.suite import HOST, Suite
from tests.harness.tlspeers import OFFER, TlsWorld
from tests.harness.waiting import wait_for

BOB: Final = b"bob@x.test"
NAME: Final = "relay.test"
SECRET: Final = "correct horse"
READABLE: Final = base64.b64encode(f"\0ann\0{SECRET}".encode()).decode()
EVERY: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
WELCOME: Final = "235 2.7.0 welcome"
Make = Callable[..., Suite]


def offer(*mechanisms: str) -> str:
    return f"250-mx.test\r\n250-PIPELINING\r\n250 AUTH {' '.join(mechanisms)}"


def logins(home: BareHome, *lines: str, mode: int = 0o600) -> None:
    home.control("smtpauth", "".join(f"{line}\n" for line in lines))
    (home.folder / "control/smtpauth").chmod(mode)


class World(TlsWorld):
    """Mail for x.test goes to relay.test, which is 127.0.0.1, where we are ann."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificate = self.ca.issue(NAME)

    def relay(self, *mechanisms: str, guard: str = "", **script: list[Any]) -> ScriptedMx:
        """One that offers AUTH behind STARTTLS only."""
        mx = self.mx(**{"EHLO_TLS": [offer(*mechanisms)], **script})
        self.use(mx.port, guard)
        return mx

    def use(self, port: int, guard: str = "", *, how: str = "") -> None:
        self.home.control("smtproutes", f"x.test:{NAME}:{port}{how}\n")
        logins(self.home, f"{NAME}:{port}{guard} ann {SECRET}")

    def outcome(self) -> tuple[Outcome, str]:
        with rspawn(self.home) as spawner:
            return spawner.deliver(BOB), spawner.log()

    def result(self) -> Result:
        return self.outcome()[0].results[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with DnsAnswerer(tmp_path, {f"{NAME} A": {"answer": [HOST]}}) as dns:
        made.home.control("dnsservers", f"{HOST}:{dns.port}\n")
        yield made


def has(mx: ScriptedMx, verb: str) -> bool:
    return any(line.upper().startswith(verb) for line in mx.lines())


def test_a_login(world: World) -> None:
    """Under TLS, with a certificate for the relay's name, a password is said; a kept session says it once."""
    with world.relay("PLAIN", AUTH=[WELCOME]) as mx, rspawn(world.home) as spawner:
        assert [spawner.result(BOB).letter for _ in range(3)] == [b"K"] * 3
        assert mx.lines()[:4] == ["EHLO me.example", "STARTTLS", "EHLO me.example", f"AUTH PLAIN {READABLE}"]
        assert (mx.sessions(), sum(line.startswith("AUTH") for line in mx.lines())) == (1, 1)


TRICKS: Final[dict[str, tuple[dict[str, list[Any]], str]]] = {
    "no TLS": ({"EHLO": [offer("PLAIN")]}, "it does not offer STARTTLS"),
    "454 to STARTTLS": ({"EHLO": [OFFER], "STARTTLS": ["454 no"]}, "it refused STARTTLS with 454"),
    "broken TLS": ({"STARTTLS": [["220 go ahead", "!close"]]}, "the TLS handshake failed"),
    "no AUTH": ({"EHLO_TLS": ["250 mx.test"]}, "it takes no logins"),
    "unknown ones": ({"EHLO_TLS": [offer("GSSAPI", "XOAUTH2")]}, "it offers no way to log in that I use under TLS"),
    "535": ({"AUTH": ["535 5.7.8 no"]}, "it did not take our login (PLAIN)"),
    "534": ({"AUTH": ["534-5.7.9 a mouthful\r\n534 5.7.9 of words"]}, "534-5.7.9 a mouthful"),
    "454": ({"AUTH": ["454 4.7.0 later"]}, "454 4.7.0 later"),
    "250": ({"AUTH": ["250 well"]}, "it did not take our login (PLAIN)"),
    "354": ({"AUTH": ["354 well"]}, "it did not take our login (PLAIN)"),
    "the password told again": ({"AUTH": [f"535 no {READABLE}"]}, "it did not take our login (PLAIN)"),
    "more challenges": ({"AUTH": ["334 "], "*": ["334 "]}, "it asks for more than the mechanism has"),
    "close": ({"AUTH": ["!close"]}, "connection died"),
    "no SMTP": ({"AUTH": ["hello?"]}, "its reply has no code"),
    "endless": ({"AUTH": ["!endless"]}, "its reply has no end"),
    "proof": ({"EHLO_TLS": [offer("SCRAM-SHA-256")], "AUTH": ["!scram"], "*": ["334 dj1BQUFB"]}, "it did not prove"),
    "no proof": ({"EHLO_TLS": [offer("SCRAM-SHA-256")], "AUTH": ["!scram"], "*": [WELCOME]}, "without proof"),
    "235 at once": ({"EHLO_TLS": [offer("SCRAM-SHA-256")], "AUTH": [WELCOME]}, "without proof"),
    "no base64": ({"EHLO_TLS": [offer("SCRAM-SHA-256")], "AUTH": ["334 !!!"]}, "a challenge that is not base64"),
    "no SCRAM": ({"EHLO_TLS": [offer("SCRAM-SHA-256")], "AUTH": ["334 AAAA"]}, "it sent a bad challenge"),
    "long": ({"EHLO_TLS": [offer("CRAM-MD5")], "AUTH": ["334 " + "A" * 4900]}, "a challenge of more than 4096 bytes"),
    "longer": ({"EHLO_TLS": [offer("CRAM-MD5")], "AUTH": ["334 " + "A" * 9000]}, "a challenge that is too long"),
    "lines": ({"EHLO_TLS": [offer("CRAM-MD5")], "AUTH": ["334-AAAA\r\n334 AAAA"]}, "a challenge that is too long"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_what_a_relay_may_do_to_us(world: World, trick: str) -> None:
    """A login that fails, however, is a deferral; nothing of the message goes out, and no text has the password."""
    script, why = TRICKS[trick]
    with world.relay("PLAIN", **script) as mx:
        (result,), log = (found := world.outcome())[0].results, found[1]
        assert not has(mx, "MAIL")
    assert (result.letter, result.status[:1]) == (b"Z", b"4")
    assert why in result.text.decode()
    for text in (result.text.decode(), result.diagnostic.decode(), log):
        assert SECRET not in text and READABLE not in text


@pytest.mark.parametrize(
    ("guard", "tls", "mechanism", "letter"),
    [
        ("", "other", "PLAIN", b"Z"),
        (":encrypt", "other", "PLAIN", b"K"),
        (":encrypt", "none", "PLAIN", b"Z"),
        (":clear", "other", "PLAIN", b"K"),
        (":clear", "none", "PLAIN", b"Z"),
        (":clear", "none", "LOGIN", b"Z"),
        (":plain", "none", "PLAIN", b"K"),
    ],
)
def test_guards(world: World, guard: str, tls: str, mechanism: str, letter: bytes) -> None:
    """What a session must be before a password is used there: verified, encrypted, or as the guard says."""
    script: dict[str, list[Any]] = {"STARTTLS": [["220 go ahead", f"!tls:{world.ca.issue('other.test')}"]]}
    if tls == "none":
        script = {"EHLO": [offer(mechanism)]}
    with world.relay(mechanism, guard=guard, AUTH=[WELCOME], **script) as mx:
        assert world.result().letter == letter
        assert has(mx, "AUTH") is (letter == b"K")


def test_a_mechanism_may_be_left_out(world: World) -> None:
    """control/ehloignore takes mechanisms out of a relay's offer, too."""
    world.home.control("ehloignore", f"{NAME}:AUTH=CRAM-MD5 AUTH=LOGIN\n")
    with world.relay("CRAM-MD5", "LOGIN", "PLAIN", AUTH=[WELCOME]) as mx:
        assert world.result().letter == b"K"
        assert has(mx, "AUTH PLAIN")


def test_a_wrong_password_is_not_repeated(world: World) -> None:
    """A refused login leaves the relay alone: its other addresses are not asked, and send is told; one line says it."""
    with DnsAnswerer(world.folder, {f"{NAME} A": {"answer": [HOST, "127.0.0.2"]}}) as dns:
        world.home.control("dnsservers", f"{HOST}:{dns.port}\n")
        with world.relay("PLAIN", AUTH=["535 5.7.8 no"]) as mx:
            outcome, log = world.outcome()
            assert mx.sessions() == 1
    assert outcome.health is Health.SHUT
    line = rf"^qm-remote: warning: login server={NAME}:{mx.port} ip=127.0.0.1 name=ann why=.* said=535_5.7.8_no$"
    assert len(re.findall(line, log, re.MULTILINE)) == 1


def test_the_file_is_read_again(world: World) -> None:
    """SIGHUP: a password that was mended counts for the next delivery; a broken file leaves what was."""
    with world.relay("PLAIN", AUTH=[WELCOME]) as mx:
        logins(world.home, f"{NAME}:{mx.port} ann wrong")
        with rspawn(world.home) as spawner:
            spawner.result(BOB)
            spawner.process.send_signal(signal.SIGHUP)
            logins(world.home, "nonsense")
            spawner.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "smtpauth: entry 1: " in spawner.log(), "a complaint")
            assert spawner.result(BOB).letter == b"K"
            logins(world.home, f"{NAME}:{mx.port} ann {SECRET}")
            spawner.process.send_signal(signal.SIGHUP)
            wait_for(lambda: spawner.result(BOB).letter and f"AUTH PLAIN {READABLE}" in mx.lines(), "the new one")
            assert "nonsense" not in spawner.log()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_others_must_not_read_it(world: World, mode: int) -> None:
    """rspawn does not start where others can read its passwords, and says what helps."""
    logins(world.home, f"{NAME} ann {SECRET}", mode=mode)
    done = world.home.run("qm-rspawn")
    assert (done.returncode, b"control/smtpauth: " in done.stderr, b"chmod" in done.stderr) == (111, True, True)


def test_a_file_that_comes_later(world: World) -> None:
    """Without the file there is no keeper; that one has come since is said."""
    with world.mx(), rspawn(world.home) as spawner:
        assert not spawner.workers()
        logins(world.home, f"{NAME} ann {SECRET}")
        spawner.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "it counts after a restart" in spawner.log(), "a word about it")


@pytest.mark.needs_root
def test_who_has_the_passwords(make_suite: Make, tmp_path: Path) -> None:
    """The file is root's; its keeper, which is root, reads it; a worker has the login that it needs, and no other."""
    suite = make_suite()
    with ScriptedMx(tmp_path, {"DATA": ["!hang"], "EHLO": [offer("PLAIN")], "AUTH": [WELCOME]}) as mx:
        lines = f"127.0.0.1:{mx.port}:plain ann {SECRET}", "elsewhere.test:25:plain ann another secret"
        suite.control("smtpauth", "".join(f"{line}\n" for line in lines), 0o600)
        out = Outbound(suite, {"x.test": mx.port})
        out.send("bob@x.test")
        wait_for(lambda: has(mx, "DATA"), "a delivery in its middle")
        spawner, keeper = suite.pid_of("qm-rspawn"), suite.pid_of("qm-rspawn: keeps logins")
        (worker,) = (pid for pid in suite.pids() if _parent(pid) == spawner and pid != keeper)
        memory = {pid: _memory(pid) for pid in (keeper, spawner, worker)}
        assert {pid: _uid(pid) == 0 for pid in memory} == {keeper: True, spawner: False, worker: False}
        another = b"another " + b"secret"
        assert {pid: another in text for pid, text in memory.items()} == {keeper: True, spawner: False, worker: False}
        holders = {pid for pid, text in memory.items() if SECRET.encode() in text}
        assert holders == {keeper, worker}
        assert SECRET not in suite.log()
    suite.wait_for_log("deferral: ")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _uid(pid: int) -> int:
    return int(re.findall(r"^Uid:\t(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[0])


def _memory(pid: int) -> bytes:
    """What a process can write in its memory, as root sees it."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(text, 16) for text in line.split()[0].split("-"))
            if " rw" in line[:60] and "[v" not in line:
                memory.seek(begin)
                found.append(memory.read(end - begin))
    return b"".join(found)


# Real servers


@pytest.fixture
def submission(make_suite: Make, world: World, tmp_path: Path) -> Suite:
    """A suite of ours that takes mail of its user ann, with STARTTLS and with TLS from the beginning."""
    suite = make_suite()
    shutil.copy(world.certificate, suite.home / "control/servercert.pem")
    (suite.home / "control/servercert.pem").chmod(0o600)
    suite.control("authfaildelay", "0\n")
    suite.control("authsenders", "ann:*\n")
    suite.control("locals", "x.test\n")
    suite.control("authmechanisms", "SCRAM-SHA-256\nCRAM-MD5\nPLAIN\nLOGIN\n")
    suite.add_user("ann", SECRET, apop=True)
    suite.add_user("bob", "another")
    suite.service("submit", f"SUBMISSION= FORCETLS= tcpserver -H -R {HOST} 0 qm-smtpd")
    suite.service("submits", f"SUBMISSION= tcpserver -H -R {HOST} 0 qm-tls smtp qm-smtpd")
    return suite


def let_in(world: World, port: int, mechanism: str, *, how: str = "") -> Result:
    """The result of a delivery when *mechanism* alone is left of what the relay offers."""
    world.home.control("ehloignore", f"{NAME}:{' '.join(f'AUTH={name}' for name in EVERY if name != mechanism)}\n")
    world.use(port, how=how)
    return world.result()


def test_our_own_submission(submission: Suite, world: World) -> None:
    """Each mechanism, by STARTTLS and by TLS from the beginning, at qm-smtpd; a wrong password is a deferral."""
    submission.start()
    for count, mechanism in enumerate(EVERY, 1):
        result = let_in(world, submission.port("submit"), mechanism)
        assert result.letter == b"K", result
        submission.wait_for_log(f"login name=ann method={mechanism} from={HOST} code=235")
        submission.wait_for_mail(count, name="bob")
    assert let_in(world, submission.port("submits"), EVERY[0], how=":tls").letter == b"K"
    logins(world.home, f"{NAME}:{submission.port('submits')} ann guess")
    result = world.result()
    assert (result.letter, b"535 5.7.8" in result.text) == (b"Z", True)


@pytest.mark.needs_root
@pytest.mark.needs("postfix", "dovecot")
def test_postfix_with_dovecot(world: World, open_folder: Path) -> None:
    """Postfix as a relay, which asks Dovecot about logins: each mechanism that they have, and a wrong password."""
    port = free_port()
    more = f"""smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {open_folder}/dovecot/run/auth-client
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {world.certificate}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
default_transport = discard
"""
    dovecot = Dovecot(open_folder / "dovecot", {"ann": f"{{PLAIN}}{SECRET}"}).start()
    postfix = Postfix(open_folder / "postfix", more, f"{HOST}:{port} inet n - n - - smtpd\n")
    try:
        postfix.start()
        for mechanism in EVERY[1:]:
            result = let_in(world, port, mechanism)
            assert result.letter == b"K", result
            said = f"sasl_method={mechanism}, sasl_username=ann"
            wait_for(partial(lambda said: said in postfix.log(), said), said)
        logins(world.home, f"{NAME}:{port} ann guess")
        result = world.result()
        assert (result.letter, b"535 5.7.8" in result.text) == (b"Z", True)
    finally:
        postfix.stop()
        dovecot.stop()
