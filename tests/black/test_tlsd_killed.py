"""What a killed qm-tlsd costs: the sessions under TLS, and nothing that was promised in them."""

import os
import poplib
import re
import signal
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.black.test_postfix_tls import SENDER
from tests.harness.postfix import Postfix
from tests.harness.suite import BIN, DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.alerts("tls ended with ")
ANN: Final = f"ann@{DOMAIN}"
BOB: Final = "bob@elsewhere.example"
TEXT: Final = b"Subject: x\r\n\r\nhello\r\n"
LONG: Final = (b"y" * 70 + b"\n") * 3000
COUNT: Final = 24
Kill = Callable[[Suite], None]


def _parent(suite: Suite) -> int:
    """As soon as there is one."""

    def look() -> int:
        try:
            return suite.pid_of("qm-tlsd")
        except (StopIteration, OSError):
            return 0

    return wait_for(look, "qm-tlsd")


def _workers(suite: Suite) -> list[int]:
    parent = _parent(suite)
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _kill_the_parent(suite: Suite) -> None:
    os.kill(_parent(suite), signal.SIGKILL)


def _kill_the_workers(suite: Suite) -> None:
    for pid in _workers(suite):
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=[_kill_the_parent, _kill_the_workers], ids=["parent", "workers"])
def kill(request: pytest.FixtureRequest) -> Kill:
    """Ends qm-tlsd's parent, whose workers the supervisor ends; or those alone."""
    made: Kill = request.param
    return made


def _session(suite: Suite) -> smtplib.SMTP:
    """Under TLS, as soon as that can be had."""

    def begin() -> smtplib.SMTP | None:
        client = smtplib.SMTP(HOST, suite.smtp_port, local_hostname="client.example", timeout=LIMIT_S)
        client.ehlo()
        try:
            if client.has_extn("starttls") and client.starttls(context=trusting())[0] == 220:
                client.ehlo()
                return client
        except (smtplib.SMTPException, OSError):
            pass
        client.close()
        return None

    return wait_for(begin, "a session under TLS")


def _rest(channel: socket.socket | None) -> bytes:
    """What the server still says, to the end of the connection."""
    assert channel is not None
    said = b""
    with channel:
        try:
            while piece := channel.recv(4096):
                said += piece
        except (ssl.SSLError, ConnectionError):
            pass
    return said


def _begin(client: smtplib.SMTP) -> None:
    """A message, as far as 354 and half a line of it."""
    client.mail(BOB)
    client.rcpt(ANN)
    assert client.docmd("DATA")[0] == 354
    client.send(b"Subject: half\r\n\r\nhel")


def test_a_message_cut_short(suite: Suite, kill: Kill) -> None:
    """A message that was under way is nobody's; its sender sees the end, and can send it again at once."""
    client = _session(suite)
    _begin(client)
    kill(suite)
    assert _rest(client.sock) == b""
    suite.wait_for_log(r"^qm-smtpd: \d+ end how=")
    with _session(suite) as again:
        again.sendmail(BOB, [ANN], TEXT)
    (mail,) = suite.wait_for_mail()
    assert mail.endswith(b"hello\n")
    suite.wait_until_idle()
    assert len(suite.mail()) == 1


def test_a_message_that_was_answered(suite: Suite, kill: Kill) -> None:
    """What had its 250 is delivered, and what the same session begins afterwards is not."""
    client = _session(suite)
    client.sendmail(BOB, [ANN], TEXT)
    _begin(client)
    kill(suite)
    assert _rest(client.sock) == b""
    suite.wait_for_mail()
    suite.wait_until_idle()
    assert len(suite.mail()) == 1


_HOLDING: Final = f"""#!/bin/sh
export PATH={BIN}:$PATH QMHOME=.
cat >out/message; cat <&1 >out/envelope; : >out/whole
read -r word <out/go
exec qm-queue <out/message 1<out/envelope
"""


def _hold(suite: Suite) -> Path:
    """Have smtpd ask a queue that waits, when it has all, until a FIFO is written; `whole` beside that says so."""
    suite.stop()
    (suite.home / "out").mkdir()
    (suite.home / "out").chmod(0o777)
    os.mkfifo(suite.home / "out/go")
    (suite.home / "out/go").chmod(0o666)
    (suite.home / "holding").write_text(_HOLDING)
    (suite.home / "holding").chmod(0o755)
    suite.service("smtp", f"QMAILQUEUE=holding tcpserver -H -R -l {DOMAIN} {HOST} 0 qm-smtpd")
    suite.start()
    return suite.home / "out/go"


def test_a_message_whose_answer_is_lost(suite: Suite, kill: Kill) -> None:
    """A message that had come whole is kept though its sender never hears so: he sends it again (RFC 1047)."""
    go = _hold(suite)
    client = _session(suite)
    client.mail(BOB)
    client.rcpt(ANN)
    client.docmd("DATA")
    client.send(TEXT + b".\r\n")
    wait_for((go.parent / "whole").exists, "the message, whole")
    kill(suite)
    assert _rest(client.sock) == b""
    go.write_text("go\n")
    (mail,) = suite.wait_for_mail()
    assert mail.endswith(b"hello\n")
    suite.wait_for_log(r"^qm-smtpd: \d+ message .* code=250 ")


def test_a_handshake(suite: Suite, kill: Kill) -> None:
    """A client in its handshake sees the end, too."""
    with socket.create_connection((HOST, suite.smtp_port), LIMIT_S) as client:
        client.recv(1000)
        client.sendall(b"EHLO x\r\n")
        client.recv(1000)
        client.sendall(b"STARTTLS\r\n")
        assert client.recv(1000).startswith(b"220 ")
        client.sendall(b"\x16\x03\x01\x02\x00\x01")  # a record's head, and the first byte of a ClientHello
        kill(suite)
        try:
            assert client.recv(1000) == b""
        except ConnectionResetError:
            pass
    _session(suite).quit()


def _pop3(suite: Suite) -> poplib.POP3_SSL:
    client = poplib.POP3_SSL(HOST, suite.port("pop3s"), timeout=LIMIT_S, context=trusting())
    client.user("ann")
    client.pass_("secret")
    return client


def _count(suite: Suite) -> int:
    """How many messages a new session finds; 0 if there is none yet."""
    try:
        client = _pop3(suite)
        count = client.stat()[0]
        client.quit()
    except (poplib.error_proto, OSError):
        return 0
    return count


@pytest.mark.filterwarnings("ignore:.*socket.SSLSocket.*")  # poplib leaves that of a greeting that did not come
def test_pop3(suite: Suite, kill: Kill) -> None:
    """What a POP3 session has marked stays, and its mailbox is free for the next one."""
    suite.send(ANN, TEXT)
    suite.wait_for_mail()
    client = _pop3(suite)
    client.dele(1)
    kill(suite)
    assert _rest(client.sock) == b""
    assert wait_for(lambda: _count(suite), "a session under TLS") == 1


def test_others_go_on(suite: Suite) -> None:
    """One worker's end is one session's; another goes on, and a new one needs no restart."""
    first = _session(suite)
    (worker,) = _workers(suite)
    second = _session(suite)
    parent = suite.pid_of("qm-tlsd")
    os.kill(worker, signal.SIGKILL)
    assert _rest(first.sock) == b""
    assert second.noop()[0] == 250
    _session(suite).quit()
    assert suite.pid_of("qm-tlsd") == parent
    second.quit()


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix_loses_nothing(suite: Suite, kill: Kill, open_folder: Path) -> None:
    """Each message of a Postfix that must encrypt arrives whole, at least once, though qm-tlsd dies often."""
    postfix = Postfix(open_folder / "postfix", SENDER.format(port=suite.smtp_port)).start()
    try:
        for number in range(COUNT):
            postfix.send(b"Subject: %d\n\n%b" % (number, LONG), "-f", BOB, ANN)
            if number % 8 == 7:
                kill(suite)

        def all_here() -> bool:
            postfix.run("postqueue", "-c", str(postfix.config), "-f")
            return len(_subjects(suite)) == COUNT

        suite.wait_for(all_here, "all messages", 60)
    finally:
        postfix.stop()
    assert all(mail.endswith(b"\n\n" + LONG) for mail in suite.mail())


def _subjects(suite: Suite) -> set[bytes]:
    return set(re.findall(rb"^Subject: (\d+)$", b"".join(suite.mail()), re.MULTILINE))
