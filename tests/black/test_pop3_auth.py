"""POP3 before login, under TLS and not: AUTH, FORCETLS, clients that break off, that say nothing, that guess."""

import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S

Make = Callable[[], Suite]
PLAIN = b64encode(b"\0ann\0secret")


class Peer:
    """One side of a conversation, in clear until `encrypt`."""

    def __init__(self, network: socket.socket) -> None:
        self.socket = network
        self._heard = b""

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        while b"\r\n" not in self._heard and (data := self.socket.recv(4096)):
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\r\n")
        return line

    def ask(self, command: bytes) -> bytes:
        self.say(command + b"\r\n")
        return self.line()

    def lines(self, command: bytes) -> list[bytes]:
        """A multi-line reply without its first line and its end."""
        assert self.ask(command).startswith(b"+OK")
        return list(iter(self.line, b"."))

    def rest(self) -> bytes:
        data, self._heard = self._heard, b""
        try:
            while piece := self.socket.recv(4096):
                data += piece
        except ConnectionError:
            pass
        return data

    def encrypt(self) -> None:
        assert self.ask(b"STLS").startswith(b"+OK")
        assert not self._heard
        self.socket = trusting().wrap_socket(self.socket)


@contextmanager
def talk(suite: Suite, service: str = "pop3", *, tls: bool = False) -> Iterator[Peer]:
    """A peer that has been greeted, and is under TLS if so wanted."""
    peer = Peer(socket.create_connection((HOST, suite.port(service)), LIMIT_S))
    try:
        assert peer.line().startswith(b"+OK ")
        if tls:
            peer.encrypt()
        yield peer
    finally:
        peer.socket.close()


@pytest.fixture
def eager(make_suite: Make) -> Suite:
    """Refusals are not waited for; users' passwords are there for every mechanism."""
    suite = make_suite()
    suite.control("authfaildelay", "0\n")
    suite.control("authmechanisms", "PLAIN\nLOGIN\nCRAM-MD5\nSCRAM-SHA-256\n")
    suite.control("timeouttls", "1\n")
    suite.add_user("ann", "secret", apop=True)
    return suite.start()


def test_offers(eager: Suite) -> None:
    """In clear there is STLS and no SASL; under TLS SASL and no STLS, on both ports; with authclear both."""
    words = b"SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"
    with talk(eager) as peer:
        before = peer.lines(b"CAPA")
        assert b"STLS" in before and not [line for line in before if line.startswith(b"SASL")]
        assert peer.ask(b"AUTH PLAIN " + PLAIN) == b"-ERR unknown command"
        peer.encrypt()
        after = peer.lines(b"CAPA")
        assert words in after and b"STLS" not in after
        assert peer.lines(b"AUTH") == words.split()[1:]
    with Peer(eager.under_tls("pop3s")).socket as tls:
        peer = Peer(tls)
        assert peer.line().startswith(b"+OK ")
        assert peer.lines(b"CAPA") == after
    eager.control("authclear", "1\n")
    with talk(eager) as peer:
        clear = peer.lines(b"CAPA")
        assert b"STLS" in clear and b"SASL SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN" in clear
        assert peer.ask(b"AUTH PLAIN " + PLAIN).startswith(b"+OK")


def test_what_is_pipelined_behind_auth(eager: Suite) -> None:
    """Commands behind the last line of an exchange are the mailbox's, under TLS too."""
    with talk(eager, tls=True) as peer:
        peer.say(b"AUTH PLAIN " + PLAIN + b"\r\nSTAT\r\nQUIT\r\n")
        assert [line[:3] for line in peer.rest().splitlines()] == [b"+OK"] * 3


def test_nothing_in_clear(make_suite: Make) -> None:
    """With FORCETLS no name, password or digest is taken before TLS, and USER is not among the capabilities."""
    suite = make_suite()
    popup = f"qm-popup {DOMAIN} checkpassword qm-pop3d Maildir"
    suite.service("pop3", f"FORCETLS= tcpserver -H -R {HOST} 0 {popup}")
    suite.control("pop3apop", "1\n")
    suite.start()
    with talk(suite) as peer:
        assert b"USER" not in peer.lines(b"CAPA")
        for line in (b"USER ann", b"PASS secret", b"APOP ann " + b"0" * 32, b"AUTH PLAIN " + PLAIN, b"AUTH"):
            assert peer.ask(line) == b"-ERR STLS first"
        peer.encrypt()
        assert b"USER" in peer.lines(b"CAPA")
        assert peer.ask(b"USER ann") == b"+OK"
        assert peer.ask(b"PASS secret").startswith(b"+OK")
    suite.wait_for_log("login ann")
    assert suite.log().count("login ann") == 1


@pytest.mark.parametrize("without", ["certificate", "tlsd"])
def test_without_tls(make_suite: Make, without: str) -> None:
    """Where there is no certificate, or no qm-tlsd, STLS is not offered, and who asks for it goes on in clear."""
    suite = make_suite()
    suite.allowed_alerts.append("certificate")
    if without == "tlsd":
        suite.service("tls", None)
    else:
        (suite.home / "control/servercert.pem").unlink()
    suite.start()
    with talk(suite) as peer:
        assert b"STLS" not in peer.lines(b"CAPA")
        assert peer.ask(b"STLS").startswith(b"-ERR")
        assert peer.ask(b"USER ann") == b"+OK"
        assert peer.ask(b"PASS secret").startswith(b"+OK")


def _offers_tls(suite: Suite) -> bool:
    with talk(suite) as peer:
        return b"STLS" in peer.lines(b"CAPA")


def test_tls_that_is_lost(eager: Suite) -> None:
    """A qm-tlsd that has gone since the greeting: the client is told to come later, and not for ever."""
    eager.control("maxerrors", "3\n")
    eager.allowed_alerts.append("certificate")
    with talk(eager) as peer:
        (eager.home / "control/servercert.pem").unlink()
        eager.wait_for(lambda: not _offers_tls(eager), "qm-tlsd has seen it")
        replies = [peer.ask(b"STLS") for _ in range(3)]
        assert replies == [b"-ERR [SYS/TEMP] no TLS now, try again later"] * 3
        assert peer.rest() == b""


def test_a_handshake_that_never_comes(eager: Suite) -> None:
    """Who asks for TLS and says nothing, or half a ClientHello, holds its own session, for timeouttls, and no other."""
    with talk(eager) as silent, talk(eager) as half:
        for peer in (silent, half):
            assert peer.ask(b"STLS").startswith(b"+OK")
        half.say(b"\x16\x03\x01\x02\x00\x01\x00")
        with talk(eager, tls=True) as other:
            assert other.ask(b"AUTH PLAIN " + PLAIN).startswith(b"+OK")
        assert silent.rest()[:1] in (b"", b"\x15") and half.rest()[:1] in (b"", b"\x15")


@pytest.mark.parametrize(
    "said",
    [b"*", b"", b"=", b"====", b"!", b"AAAA", b"A" * 12288, b"A" * 100_000, b"\xff\xfe", b"QUIT", b"AUTH PLAIN", b"\0"],
)
@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"])
def test_garbage(auth_suite: Suite, mechanism: bytes, said: bytes) -> None:
    """Whatever comes in an exchange, it ends with a refusal, and the client can still log in."""
    with talk(auth_suite, tls=True) as peer:
        reply = peer.ask(b"AUTH " + mechanism)
        for _ in range(3):
            if not reply.startswith(b"+ "):
                break
            reply = peer.ask(said)
        assert reply.startswith(b"-ERR")
        assert peer.ask(b"AUTH PLAIN " + PLAIN).startswith(b"+OK")


@pytest.fixture(scope="module")
def auth_suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """One for many conversations."""
    suite = Suite(tmp_path_factory.mktemp("auth") / "home")
    suite.control("authfaildelay", "0\n")
    suite.control("authfailaccount", "0\n")
    suite.control("authfailaddress", "0\n")
    suite.control("authmechanisms", "PLAIN\nLOGIN\nCRAM-MD5\nSCRAM-SHA-256\n")
    suite.add_user("ann", "secret", apop=True)
    suite.start()
    yield suite
    suite.stop()
    assert not suite.alerts()


def test_words_behind_a_mechanism(auth_suite: Suite) -> None:
    """More than one initial response, none that was offered, and an initial response where the server begins."""
    with talk(auth_suite, tls=True) as peer:
        assert peer.ask(b"AUTH PLAIN a b") == b"-ERR wrong number of arguments"
        assert peer.ask(b"AUTH GSSAPI") == b"-ERR that mechanism is not offered"
        assert peer.ask(b"AUTH EXTERNAL =") == b"-ERR that mechanism is not offered"
        assert peer.ask(b"AUTH CRAM-MD5 " + PLAIN) == b"-ERR cannot read that"


def test_somebody_who_leaves(eager: Suite) -> None:
    """A client that goes away within an exchange, or within a line of it, is nobody's failure."""
    for said in (b"AUTH CRAM-MD5\r\n", b"AUTH PLAIN\r\nAGFu", b"AUTH LOGIN\r\nYW5u\r\n", b"AUTH SCRAM-SHA-256 biw"):
        with talk(eager, tls=True) as peer:
            peer.say(said)
    with talk(eager, tls=True) as peer:
        assert peer.ask(b"AUTH PLAIN " + PLAIN).startswith(b"+OK")
    eager.wait_for_log("login ann")
    assert eager.log().count("login ") == 1


def test_bad_commands_have_an_end(auth_suite: Suite) -> None:
    """Exchanges that say nothing count like other bad commands."""
    with talk(auth_suite, tls=True) as peer:
        peer.say(b"AUTH PLAIN *\r\n" * 30)
        replies = peer.rest().splitlines()
    assert replies == [b"-ERR authentication cancelled"] * 20 + [b"-ERR too many bad commands, goodbye"]


@pytest.mark.parametrize("line", [b"AUTH PLAIN " + b64encode(b"\0ann\0guess"), b"USER ann\r\nPASS guess"])
def test_guesses_in_a_session(auth_suite: Suite, line: bytes) -> None:
    """After maxlogins guesses, by whatever command, the session ends; the log has a line for each, and no password."""
    before = auth_suite.log().count("login refused")
    with talk(auth_suite, tls=True) as peer:
        peer.say((line + b"\r\n") * 5)
        refused = [reply for reply in peer.rest().splitlines() if reply.startswith(b"-ERR")]
    assert refused == [b"-ERR [AUTH] login refused"] * 3
    auth_suite.wait_for(lambda: auth_suite.log().count("login refused") >= before + 3, "three lines")
    assert auth_suite.log().count("login refused") == before + 3
    assert "guess" not in auth_suite.log()


def test_a_stranger_gets_plain(make_suite: Make) -> None:
    """A checkpassword of another maker is offered PLAIN and LOGIN, and finds what it finds after USER and PASS."""
    suite = make_suite()
    script = suite.home / "check"
    script.write_text(
        '#!/bin/sh\ntr "\\000" "|" <&3 | cut -d"|" -f1,2,4\nprintf "%s %s\\r\\n" "$SSL_PROTOCOL" "$1"\nexit 0\n'
    )
    script.chmod(0o755)
    suite.service("pop3", f"tcpserver -H -R {HOST} 0 qm-popup {DOMAIN} ./check pop3d")
    suite.start()
    for lines in ((b"AUTH PLAIN " + PLAIN,), (b"AUTH LOGIN", b64encode(b"ann"), b64encode(b"secret"))):
        with talk(suite, tls=True) as peer:
            assert peer.lines(b"AUTH") == [b"PLAIN", b"LOGIN"]
            peer.say(b"".join(line + b"\r\n" for line in lines))
            assert peer.rest().splitlines()[-2:] == [b"ann|secret|PASS", b"TLSv1.3 pop3d"]
