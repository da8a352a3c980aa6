"""CVE-2011-0411 for POP3: what a stranger in the middle puts behind STLS must not be heard, or answered, under TLS."""

import poplib
import socket
import ssl

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S


def _connect(suite: Suite) -> socket.socket:
    peer = socket.create_connection((HOST, suite.pop3_port), LIMIT_S)
    assert peer.recv(1000).startswith(b"+OK ")
    return peer


def _all_that_comes(peer: socket.socket) -> bytes:
    data = b""
    try:
        while piece := peer.recv(4096):
            data += piece
    except ConnectionError:
        pass
    return data


@pytest.mark.parametrize(
    "behind",
    [b"NOOP\r\n", b"CAPA\r\nUSER evil\r\n", b"USER ann\r\nPASS secret\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"\n", b"x"],
)
def test_together(suite: Suite, behind: bytes) -> None:
    """What comes with STLS ends the session before a handshake, and no command of it is answered or in the log."""
    with _connect(suite) as peer:
        peer.sendall(b"STLS\r\n" + behind)
        assert _all_that_comes(peer) == b"-ERR something came behind STLS\r\n"
    assert not [line for line in suite.log().splitlines() if "login " in line or "evil" in line]


def test_a_moment_later(suite: Suite) -> None:
    """What comes behind STLS, when that has been taken, is the handshake's, which it breaks."""
    with _connect(suite) as peer:
        peer.sendall(b"STLS\r\n")
        assert peer.recv(1000) == b"+OK begin TLS\r\n"
        peer.sendall(b"USER evil\r\nPASS secret\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            trusting().wrap_socket(peer).recv(1000)
    suite.wait_for_log("qm-tlsd: .*no TLS: ")
    assert "evil" not in suite.log()


def test_no_answer_is_injected(suite: Suite) -> None:
    """Under TLS the first word is the client's: no greeting, and no answer to anything that was said in clear.

    The other way round, one +OK stands in clear between STLS and the handshake, and nothing behind it.
    """
    with _connect(suite) as peer:
        peer.sendall(b"NOOP\r\nUSER evil\r\nSTLS\r\n")
        said = b""
        while said.count(b"\n") < 3:
            said += peer.recv(1000)
        assert said == b"+OK\r\n+OK\r\n+OK begin TLS\r\n"
        with trusting().wrap_socket(peer) as tls:
            tls.settimeout(0.2)
            with pytest.raises(TimeoutError):
                tls.recv(1000)
            tls.settimeout(LIMIT_S)
            tls.sendall(b"NOOP\r\nQUIT\r\n")
            assert _all_that_comes(tls) == b"+OK\r\n+OK goodbye\r\n"


def test_states_are_forgotten(suite: Suite) -> None:
    """A name that was said in clear is not the name of a password under TLS (RFC 2595 section 4)."""
    with _connect(suite) as peer:
        peer.sendall(b"USER ann\r\n")
        assert peer.recv(1000) == b"+OK\r\n"
        peer.sendall(b"STLS\r\n")
        assert peer.recv(1000).startswith(b"+OK begin TLS")
        with trusting().wrap_socket(peer) as tls:
            tls.sendall(b"PASS secret\r\n")
            assert tls.recv(1000) == b"-ERR USER first\r\n"
            tls.sendall(b"USER ann\r\nPASS secret\r\nSTAT\r\n")
            said = b""
            while said.count(b"\n") < 3:
                said += tls.recv(1000)
            assert [line[:3] for line in said.splitlines()] == [b"+OK"] * 3


def test_a_half_said_exchange_is_forgotten(suite: Suite) -> None:
    """STLS within an exchange is a line of it, and no STLS; afterwards there is nothing of it."""
    suite.control("authclear", "1\n")
    with _connect(suite) as peer:
        peer.sendall(b"AUTH PLAIN\r\n")
        assert peer.recv(1000) == b"+ \r\n"
        peer.sendall(b"STLS\r\n")
        assert peer.recv(1000) == b"-ERR cannot read that\r\n"
        peer.sendall(b"STLS\r\n")
        assert peer.recv(1000) == b"+OK begin TLS\r\n"
        with trusting().wrap_socket(peer) as tls:
            tls.sendall(b"AGFubgBzZWNyZXQ=\r\n")
            assert tls.recv(1000) == b"-ERR unknown command\r\n"


def _refusal(client: poplib.POP3) -> bytes:
    """Of STLS."""
    with pytest.raises(poplib.error_proto) as refused:
        client._shortcmd("STLS")  # type: ignore[attr-defined]
    text: bytes = refused.value.args[0]
    return text


def test_an_honest_client(suite: Suite) -> None:
    """Python's client asks for STLS once, and cannot ask again, neither before the login nor after it."""
    client = poplib.POP3(HOST, suite.pop3_port, timeout=LIMIT_S)
    assert "STLS" in client.capa() and "SASL" not in client.capa()
    client.stls(context=trusting())
    assert "STLS" not in client.capa() and "SCRAM-SHA-256-PLUS" in client.capa()["SASL"]
    assert _refusal(client) == b"-ERR unknown command"
    client.user("ann")
    client.pass_("secret")
    assert _refusal(client) == b"-ERR unknown command"
    assert client.quit().startswith(b"+OK")


def test_after_a_login_in_clear(suite: Suite) -> None:
    """Who has logged in cannot ask for TLS any more (RFC 2595 section 4)."""
    client = suite.pop3()
    assert _refusal(client) == b"-ERR unknown command"
    client.quit()


def test_on_the_tls_port(suite: Suite) -> None:
    """There is no TLS under TLS."""
    with suite.under_tls("pop3s", DOMAIN) as tls:
        tls.recv(1000)
        tls.sendall(b"STLS\r\n")
        assert tls.recv(1000) == b"-ERR unknown command\r\n"
