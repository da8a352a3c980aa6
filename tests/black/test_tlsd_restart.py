"""qm-tlsd that ends while sessions are open: they live on or end cleanly, and new ones are served again."""

import os
import signal
import smtplib
import ssl
from collections.abc import Callable

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting


def _served(suite: Suite) -> bool:
    try:
        with suite.under_tls("pop3s") as client:
            return client.recv(1000).startswith(b"+OK")
    except (ssl.SSLError, OSError):
        return False


def _all(client: ssl.SSLSocket) -> bytes:
    with client:
        try:
            return b"".join(iter(lambda: client.recv(65536), b""))
        except (ssl.SSLError, ConnectionError):
            return b""


def test_hangup_drops_nothing(suite: Suite) -> None:
    """SIGHUP makes it look at certificates; sessions go on."""
    with suite.under_tls("pop3s") as client:
        assert client.recv(1000).startswith(b"+OK")
        os.kill(suite.pid_of("qm-tlsd"), signal.SIGHUP)
        client.sendall(b"CAPA\r\n")
        assert client.recv(1000).startswith(b"+OK")
    assert _served(suite)


@pytest.mark.alerts("tls ended with ")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_it_comes_back(suite: Suite, signum: signal.Signals) -> None:
    """After its end the supervisor starts it again; who served before it ended finds the new one by itself.

    Its sessions come to their end, as a client can tell.
    """
    session = suite.under_tls("pop3s")
    assert session.recv(1000).startswith(b"+OK")
    with smtplib.SMTP(HOST, suite.smtp_port, timeout=30) as smtp:  # its smtpd has a connection to the old one
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        os.kill(suite.pid_of("qm-tlsd"), signum)
        assert _all(session) == b""
        suite.wait_for(lambda: _served(suite), "TLS again")
        assert smtp.starttls(context=trusting())[0] == 220
        smtp.ehlo()
        assert smtp.sendmail("x@elsewhere.example", [f"ann@{DOMAIN}"], b"Subject: x\r\n\r\ny\r\n") == {}
    suite.wait_for_mail()


def test_while_it_is_away(make_suite: Callable[[], Suite]) -> None:
    """Without it, services with TLS end connections, STARTTLS is not offered, and mail comes in."""
    suite = make_suite()
    suite.service("tls", None)
    suite.start()
    assert not _served(suite)
    with smtplib.SMTP(HOST, suite.smtp_port, timeout=30) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.sendmail("x@elsewhere.example", [f"ann@{DOMAIN}"], b"Subject: x\r\n\r\ny\r\n") == {}
    suite.wait_for_mail()
    suite.wait_for_log("is qm-tlsd running")
