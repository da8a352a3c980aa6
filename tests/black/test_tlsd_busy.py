"""Attack: so many sessions under TLS that there is room for no more: others are told to come later, in clear."""

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting

MOST = 2


@pytest.fixture
def full(make_suite: Callable[[], Suite]) -> Iterator[tuple[Suite, ExitStack]]:
    """A suite all of whose sessions are held; closing the stack lets them go."""
    suite = make_suite()
    suite.control("concurrencytls", f"{MOST}\n")
    suite.start()
    with ExitStack() as held:
        for _ in range(MOST):
            client = held.enter_context(suite.under_tls("pop3s"))
            assert client.recv(1000).startswith(b"+OK")
        yield suite, held


def test_starttls_is_refused_for_now(full: tuple[Suite, ExitStack]) -> None:
    """STARTTLS gets 454, the session goes on in clear, and mail for us still comes in."""
    suite, _ = full
    with smtplib.SMTP(HOST, suite.smtp_port, timeout=30) as smtp:
        smtp.ehlo()
        code, _ = smtp.docmd("STARTTLS")
        assert code == 454
        assert smtp.sendmail("x@elsewhere.example", [f"ann@{DOMAIN}"], b"Subject: x\r\n\r\ny\r\n") == {}
    suite.wait_for_mail()
    suite.wait_for_log(r"a client goes without TLS: all sessions \(control/concurrencytls\) are in use")


def test_a_login_is_not_taken_in_clear(full: tuple[Suite, ExitStack]) -> None:
    """Where TLS is demanded, nothing but another try is left: no password goes in clear."""
    suite, _ = full
    with smtplib.SMTP(HOST, suite.port("submit"), timeout=30) as smtp:
        smtp.ehlo()
        assert smtp.docmd("STARTTLS")[0] == 454
        assert smtp.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")[0] == 530
        assert not smtp.has_extn("auth")


@pytest.mark.parametrize("service", ["pop3s", "submits"])
def test_implicit_tls_ends(full: tuple[Suite, ExitStack], service: str) -> None:
    """Who begins with TLS gets the end of the connection, not a word in clear."""
    suite, _ = full
    with pytest.raises((ssl.SSLError, ConnectionError)):
        suite.under_tls(service).close()


def test_room_is_used_again(full: tuple[Suite, ExitStack]) -> None:
    """When a session ends, the next may come."""
    suite, held = full
    held.close()

    def served() -> bool:
        try:
            with suite.under_tls("pop3s") as client:
                return client.recv(1000).startswith(b"+OK")
        except (ssl.SSLError, ConnectionError):
            return False

    suite.wait_for(served, "a session")
    with smtplib.SMTP(HOST, suite.smtp_port, timeout=30) as smtp:
        smtp.starttls(context=trusting())
