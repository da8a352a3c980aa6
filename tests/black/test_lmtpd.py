"""qm-lmtpd with the LMTP clients of others: Postfix's lmtp(8), and swaks."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.postfix import Postfix
from tests.harness.suite import DOMAIN, HOST, Suite
from tests.harness.waiting import wait_for


@pytest.fixture
def lmtp(make_suite: Callable[..., Suite]) -> Suite:
    """A suite that takes mail by LMTP at the service "lmtp"."""
    suite = make_suite()
    suite.add_user("bob", "secret")
    suite.service("lmtp", f"tcpserver -H -R {HOST} 0 qm-lmtpd")
    return suite.start()


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix(lmtp: Suite, open_folder: Path) -> None:
    """Postfix hands a message over in one transaction; each recipient's verdict is its own."""
    more = f"""mydestination =
relay_domains = {DOMAIN}
relay_transport = lmtp:inet:{HOST}:{lmtp.port("lmtp")}
lmtp_destination_recipient_limit = 10
"""
    postfix = Postfix(open_folder / "postfix", more)
    try:
        postfix.start()
        recipients = [f"{name}@{DOMAIN}" for name in ("ann", "nobody", "bob")]
        postfix.send(b"Subject: hello\n\n.body\n", "-f", "root@elsewhere.example", *recipients)
        (mail,), (_,) = lmtp.wait_for_mail(), lmtp.wait_for_mail(name="bob")
        wait_for(lambda: postfix.log().count("status=") >= 3, "three verdicts")
    finally:
        postfix.stop()
    found = dict(re.findall(rf"to=<(\w+)@{DOMAIN}>.* status=(\w+)", postfix.log()))
    assert found == {"ann": "sent", "bob": "sent", "nobody": "bounced"}
    assert b"  by test.example with LMTP\n" in mail and mail.endswith(b"\n\n.body\n")
    lmtp.wait_for_log("^qm-lmtpd: .* message id=")
    assert len(re.findall("^qm-lmtpd: .* message id=", lmtp.log(), re.MULTILINE)) == 1


@pytest.mark.needs("swaks")
def test_swaks(lmtp: Suite) -> None:
    """swaks hears an answer for each of its recipients."""
    argv = ["swaks", "--protocol", "LMTP", "--server", HOST, "--port", str(lmtp.port("lmtp"))]
    argv += ["--from", "a@elsewhere.example", "--to", f"ann@{DOMAIN},bob@{DOMAIN}"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode()
    (_,), (_,) = lmtp.wait_for_mail(), lmtp.wait_for_mail(name="bob")


def test_words(lmtp: Suite) -> None:
    """It greets as LMTP, knows LHLO and neither HELO nor EHLO, and relays as little as qm-smtpd."""
    with Dialogue(lmtp.port("lmtp")) as client:
        assert client.reply().endswith(b" LMTP")
        for line, code in (
            (b"EHLO c", b"500"),
            (b"LHLO c", b"250"),
            (b"MAIL FROM:<a@elsewhere.example>", b"250"),
            (b"RCPT TO:<b@elsewhere.example>", b"553"),
            (b"DATA", b"503"),
        ):
            assert client.ask(line).startswith(code)


def test_usage(lmtp: Suite) -> None:
    """It takes no arguments."""
    assert lmtp.run("qm-lmtpd", "host").returncode == 100
