"""qm-lmtpd with the LMTP clients of others: Postfix's lmtp(8), and swaks."""

import pwd
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.postfix import Postfix
from tests.harness.suite import DOMAIN, HOST, Suite
from tests.harness.waiting import LIMIT_S, wait_for


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


@pytest.fixture
def at_socket(make_suite: Callable[..., Suite], open_folder: Path) -> Suite:
    """A suite that takes mail by LMTP at run/lmtp, to which Postfix alone, and root, can connect."""
    suite = make_suite(open_folder)
    suite.add_user("bob", "secret")
    suite.service("lmtp", f"ipcserver -v -o postfix -m 600 {suite.home}/run/lmtp qm-lmtpd")
    return suite.start()


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix_by_a_socket(at_socket: Suite, open_folder: Path) -> None:
    """By a Unix socket it is the same; who reads what Postfix says is not root, and the trace tells who that was."""
    more = f"mydestination =\nrelay_domains = {DOMAIN}\nrelay_transport = lmtp:unix:{at_socket.home}/run/lmtp\n"
    postfix = Postfix(open_folder / "postfix", more)
    try:
        postfix.start()
        recipients = [f"{name}@{DOMAIN}" for name in ("ann", "nobody", "bob")]
        postfix.send(b"Subject: hello\n\n.body\n", "-f", "root@elsewhere.example", *recipients)
        (mail,), (_,) = at_socket.wait_for_mail(), at_socket.wait_for_mail(name="bob")
        wait_for(lambda: postfix.log().count("status=") >= 3, "three verdicts")
    finally:
        postfix.stop()
    found = dict(re.findall(rf"to=<(\w+)@{DOMAIN}>.* status=(\w+)", postfix.log()))
    assert found == {"ann": "sent", "bob": "sent", "nobody": "bounced"}
    uid = pwd.getpwnam("postfix").pw_uid
    trace = b"Received: from mx.test.example (uid-%d@localhost [unknown])\n  by test.example with LMTP\n" % uid
    assert trace in mail and mail.endswith(b"\n\n.body\n")
    assert re.search(rf"^ipcserver: ok \d+ {at_socket.home}/run/lmtp {uid}:\d+:\d+$", at_socket.log(), re.MULTILINE)


def _readers(suite: Suite) -> list[tuple[int, int]]:
    """Effective user and group of ipcserver and its workers."""
    found = []
    for pid in suite.pids():
        if b"qm-lmtpd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            status = Path(f"/proc/{pid}/status").read_text()
            uid, gid = (re.findall(rf"^{name}:\s+\d+\s+(\d+)", status, re.MULTILINE)[0] for name in ("Uid", "Gid"))
            found.append((int(uid), int(gid)))
    return found


@pytest.mark.needs_root
def test_who_reads_what_comes_by_a_socket(at_socket: Suite) -> None:
    """Once the socket has been given away nobody there is root: neither who accepts, nor who reads."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(LIMIT_S)
        channel.connect(f"{at_socket.home}/run/lmtp")
        assert channel.recv(1000).endswith(b" LMTP\r\n")
        lines = (at_socket.home / "control/roles").read_text().split()
        qmaild = next(tuple(map(int, line.split(":")[1:])) for line in lines if line.startswith("qmaild:"))
        assert _readers(at_socket) == [qmaild] * 2


@pytest.mark.needs("swaks")
@pytest.mark.needs_root
def test_swaks_by_a_socket(at_socket: Suite) -> None:
    """swaks, too, hears an answer for each of its recipients; after a stop of the suite nobody answers."""
    argv = ["swaks", "--protocol", "LMTP", "--socket", f"{at_socket.home}/run/lmtp"]
    argv += ["--from", "a@elsewhere.example", "--to", f"ann@{DOMAIN},bob@{DOMAIN}"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode()
    (_,), (_,) = at_socket.wait_for_mail(), at_socket.wait_for_mail(name="bob")
    at_socket.restart()
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0
    at_socket.stop()
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 2


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
