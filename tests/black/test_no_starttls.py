"""The NO STARTTLS study (2021): what is said in clear has no part in what follows under TLS, in either direction."""

import smtplib
import socket
from collections.abc import Callable

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting

ANN = f"ann@{DOMAIN}"


@pytest.fixture
def secure(make_suite: Callable[[], Suite]) -> Suite:
    """Logins are taken in clear too, so that there is something to forget."""
    suite = make_suite()
    suite.control("authclear", "1\n")
    suite.service("both", f"tcpserver -H -R {HOST} 0 qm-smtpd {DOMAIN} checkpassword true")
    return suite.start()


def _client(suite: Suite, service: str = "both") -> smtplib.SMTP:
    smtp = smtplib.SMTP(HOST, suite.port(service), timeout=30)
    smtp.ehlo()
    return smtp


def test_a_transaction(secure: Suite) -> None:
    """A sender and recipients of before STARTTLS get no message after it."""
    with _client(secure) as smtp:
        smtp.mail("evil@x.example")
        smtp.rcpt(ANN)
        smtp.starttls(context=trusting())
        assert smtp.docmd("DATA")[0] == 503
        assert smtp.rcpt(ANN)[0] == 503


def test_a_login(secure: Suite) -> None:
    """A login in clear is none under TLS."""
    with _client(secure) as smtp:
        smtp.login("ann", "secret")
        smtp.starttls(context=trusting())
        smtp.ehlo()
        smtp.mail("evil@x.example")
        assert smtp.rcpt("y@elsewhere.example")[0] == 553
        smtp.rset()
        smtp.login("ann", "secret")
        smtp.mail("evil@x.example")
        assert smtp.rcpt("y@elsewhere.example")[0] == 250


def test_half_a_login(secure: Suite) -> None:
    """STARTTLS in the middle of an AUTH exchange is a response like any other: the exchange fails, there is no TLS."""
    with _client(secure) as smtp:
        assert smtp.docmd("AUTH LOGIN")[0] == 334
        assert smtp.docmd("STARTTLS")[0] == 334  # which is base64, of a name that nobody has
        assert smtp.docmd("*")[0] == 501
        assert smtp.noop()[0] == 250


def test_a_second_time(secure: Suite) -> None:
    """There is no TLS in TLS."""
    with _client(secure) as smtp:
        smtp.starttls(context=trusting())
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.docmd("STARTTLS")[0] == 503
        assert smtp.noop()[0] == 250


@pytest.mark.parametrize("verb", [b"POST / HTTP/1.1", b"GET /", b"CONNECT a:25 HTTP/1.1", b"OPTIONS *"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_another_protocol(secure: Suite, verb: bytes, encrypted: bool) -> None:
    """A browser that somebody has aimed at us is sent away at its first line, under TLS too (ALPACA)."""
    peer = socket.create_connection((HOST, secure.port("both")), timeout=30)
    peer.recv(1000)
    if encrypted:
        peer.sendall(b"STARTTLS\r\n")
        peer.recv(1000)
        peer = trusting().wrap_socket(peer)
    with peer:
        peer.sendall(verb + b"\r\nHost: x\r\n\r\nEHLO evil\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n")
        said = b""
        while data := peer.recv(1000):
            said += data
    assert said == b"500 5.5.2 this is SMTP\r\n"
    secure.wait_for_log("end how=closed")
    assert "evil" not in secure.log() and "login" not in secure.log()


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r"])
def test_smuggling_under_tls(secure: Suite, ending: bytes) -> None:
    """A second message in the first is refused under TLS as in clear."""
    with _client(secure) as smtp:
        smtp.starttls(context=trusting())
        smtp.mail("a@x.example")
        smtp.rcpt(ANN)
        assert smtp.docmd("DATA")[0] == 354
        assert smtp.sock is not None
        smtp.sock.sendall(b"x" + ending + b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<ann@test.example>\r\nDATA\r\n.\r\n")
        assert smtp.getreply()[0] == 554
    assert "evil" not in secure.log()
