"""CVE-2011-0411: what a stranger in the middle puts behind STARTTLS must not be heard under TLS."""

import smtplib
import socket
import ssl
from collections.abc import Callable

import pytest

from tests.harness.suite import HOST, Suite, trusting


@pytest.fixture
def secure(make_suite: Callable[[], Suite]) -> Suite:
    suite = make_suite()
    return suite.start()


def _to_starttls(suite: Suite, behind: bytes) -> tuple[socket.socket, bytes]:
    """A connection on which STARTTLS was said, and what the server said to that and to what came behind it."""
    peer = socket.create_connection((HOST, suite.smtp_port), timeout=30)
    peer.recv(1000)
    peer.sendall(b"EHLO c\r\nSTARTTLS\r\n" + behind)
    said = b""
    while b"\r\n250 ENHANCEDSTATUSCODES\r\n" not in said or said.endswith(b"ENHANCEDSTATUSCODES\r\n"):
        data = peer.recv(4096)
        if not data:
            break
        said += data
    return peer, said.partition(b"ENHANCEDSTATUSCODES\r\n")[2]


@pytest.mark.parametrize(
    "behind", [b"NOOP\r\n", b"EHLO evil\r\nMAIL FROM:<evil@x>\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"\n"]
)
def test_together(secure: Suite, behind: bytes) -> None:
    """What comes with STARTTLS ends the session before a handshake; no command of it is in the log."""
    peer, said = _to_starttls(secure, behind)
    with peer:
        assert said == b"554 5.7.0 something came behind STARTTLS\r\n"
        assert peer.recv(1000) == b""
    secure.wait_for_log("end how=closed")
    assert "evil" not in secure.log()
    assert "tls version" not in secure.log()


def test_a_moment_later(secure: Suite) -> None:
    """What comes behind STARTTLS, when that has been taken, is the handshake's, which it breaks."""
    peer, said = _to_starttls(secure, b"")
    with peer:
        assert said.startswith(b"220 ")
        peer.sendall(b"EHLO evil\r\n")
        context = trusting()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(peer).recv(1000)
    secure.wait_for_log("end how=")
    assert "evil" not in secure.log()


def test_an_honest_client(secure: Suite) -> None:
    """A client that waits for 220 is served."""
    with smtplib.SMTP(HOST, secure.smtp_port, timeout=30) as smtp:
        smtp.starttls(context=trusting())
        assert smtp.noop()[0] == 250
