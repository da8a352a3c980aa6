"""SMTP under TLS, with the clients that people have: STARTTLS, and TLS from the beginning."""

import re
import smtplib
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting

ANN = f"ann@{DOMAIN}"
Make = Callable[[], Suite]
UNDER_TLS = rb"  by test.example with %b \(TLSv1\.[23] [0-9A-Z_-]+\)\n"


@pytest.fixture
def secure(make_suite: Make) -> Suite:
    """A suite with a certificate, with STARTTLS for strangers, and with both ways for users."""
    suite = make_suite()
    suite.control("authfaildelay", "0\n")
    suite.control("authmechanisms", "PLAIN\nLOGIN\nCRAM-MD5\nSCRAM-SHA-256\n")
    suite.add_user("bob", "secret two", apop=True)
    return suite.start()


def run(suite: Suite, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(suite.home), "LC_ALL": "C"}
    return subprocess.run(argv, input=input, env=env, cwd="/", capture_output=True, timeout=60, check=False)


def test_strangers(secure: Suite) -> None:
    """Mail from another host comes under TLS if that asks for it; under TLS there is no STARTTLS any more."""
    with secure.smtp() as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls") and not smtp.has_extn("auth")
        assert smtp.starttls(context=trusting())[0] == 220
        smtp.ehlo()
        assert not smtp.has_extn("starttls") and not smtp.has_extn("auth")
        assert smtp.docmd("STARTTLS")[0] == 503
        smtp.sendmail("x@elsewhere.example", [ANN], b"Subject: x\r\n\r\n" + b"y" * 500 + b"\r\n" + b"z\r\n" * 100_000)
    [mail] = secure.wait_for_mail()
    assert re.search(UNDER_TLS % b"ESMTPS", mail)
    assert mail.endswith(b"z\n" * 100_000)
    secure.wait_for_log(r"tls version=TLSv1\.3 cipher=TLS_\S+ sni=")


@pytest.mark.parametrize("implicit", [False, True])
def test_users(secure: Suite, implicit: bool) -> None:
    """A user's message over 587 with STARTTLS, and over 465."""
    port = secure.port("submits" if implicit else "submit")
    smtp = smtplib.SMTP_SSL(HOST, port, context=trusting()) if implicit else smtplib.SMTP(HOST, port, timeout=30)
    with smtp:
        if not implicit:
            smtp.starttls(context=trusting())
        smtp.login("bob", "secret two")
        smtp.sendmail(f"bob@{DOMAIN}", ["ann"], b"Subject: x\r\n\r\ny\r\n")
        assert smtp.quit()[0] == 221
    assert re.search(UNDER_TLS % b"ESMTPSA", secure.wait_for_mail()[0])


def test_nothing_in_clear(secure: Suite) -> None:
    """With FORCETLS neither mail nor a password is taken in clear, and AUTH is not offered."""
    with smtplib.SMTP(HOST, secure.port("submit"), timeout=30) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("auth")
        assert smtp.docmd("AUTH PLAIN AGFubgBzZWNyZXQ=")[0] == 530
        assert smtp.mail(ANN)[0] == 530
        assert smtp.noop()[0] == 250
    assert "code=235" not in secure.log()


def test_without_a_certificate(make_suite: Make) -> None:
    """Without a certificate STARTTLS is not offered; who asks all the same hears 454, and goes on in clear."""
    suite = make_suite()
    suite.allowed_alerts.append("certificate")
    (suite.home / "control/servercert.pem").unlink()
    suite.start()
    with suite.smtp() as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.docmd("STARTTLS")[0] == 454
        smtp.sendmail("x@elsewhere.example", [ANN], b"Subject: x\r\n\r\ny\r\n")
    suite.wait_for_mail()


def test_without_tlsd(make_suite: Make) -> None:
    """Where qm-tlsd does not run mail is taken in clear."""
    suite = make_suite()
    suite.service("tls", None)
    suite.start()
    with suite.smtp() as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.docmd("STARTTLS")[0] == 454


def test_a_handshake_that_never_comes(secure: Suite) -> None:
    """Who says STARTTLS and then nothing holds its own session, for timeouttls, and nobody else's."""
    secure.control("timeouttls", "1\n")
    with socket.create_connection((HOST, secure.smtp_port), timeout=30) as peer:
        peer.recv(1000)
        peer.sendall(b"STARTTLS\r\n")
        assert peer.recv(1000).startswith(b"220 2.0.0 ")
        secure.send(ANN, b"Subject: x\r\n\r\ny\r\n")
        assert peer.recv(1000) == b""


@pytest.mark.needs("openssl")
def test_s_client(secure: Suite) -> None:
    """openssl s_client -starttls smtp: the name that it calls us by is in the log, and the last reply arrives."""
    common = ["openssl", "s_client", "-quiet", "-connect", f"{HOST}:{secure.smtp_port}", "-starttls", "smtp", "-crlf"]
    done = run(secure, *common, "-servername", DOMAIN, input=b"NOOP\nQUIT\n")
    assert done.stdout.endswith(b"250 2.0.0 ok\r\n221 2.0.0 test.example\r\n")
    secure.wait_for_log(r"tls version=TLSv1\.3 cipher=TLS_\S+ sni=test\.example")
