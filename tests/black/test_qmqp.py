"""QMQP: qm-qmqpd and qm-qmqpc, with each other and with Postfix's (qmail.md 16.7)."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.suite import BIN, DOMAIN, HOST, Suite
from tests.harness.waiting import wait_for

FRAME = b"18:3:Hi\n,3:a@b,3:c@d,,"  # qmail.md 16.7
MESSAGE = b"Subject: test\n\nHi\n"
Client = Callable[[str, bytes, bytes], int]


@pytest.fixture
def qmqp(suite: Suite) -> Suite:
    """A suite with qm-qmqpd behind tcpserver; its port is port("qmqp")."""
    suite.stop()
    suite.service("qmqp", f"tcpserver -H -R -l {DOMAIN} {HOST} 0 qm-qmqpd")
    suite.start()
    return suite


def _frame(message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    inner = b"".join(b"%d:%b," % (len(text), text) for text in (message, sender, *recipients))
    return b"%d:%b," % (len(inner), inner)


def _say(suite: Suite, data: bytes) -> bytes:
    """What qm-qmqpd answers to *data* and the end of it."""
    with socket.create_connection((HOST, suite.port("qmqp")), 10) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := peer.recv(4096):
            answer += piece
    return answer


def test_a_message_comes_in(qmqp: Suite) -> None:
    """A message is queued as it came, from whom and for whom it says, with a Received field that says QMQP."""
    answer = _say(qmqp, _frame(MESSAGE, b"bob@x.test", b"ann@" + DOMAIN.encode()))
    assert re.fullmatch(rb"\d+:Kok \d{10} id [0-9a-z]{18},", answer)
    (mail,) = qmqp.wait_for_mail()
    assert mail.endswith(MESSAGE)
    assert b"with QMQP" in mail and b"Return-Path: <bob@x.test>" in mail


@pytest.mark.parametrize(
    ("sender", "recipients", "answer"),
    [
        (b"x" * 1100, [b"c@d"], b"#5.1.7"),
        (b"a\0@b", [b"c@d"], b"#5.1.7"),
        (b"a@b", [b"c@d", b"x" * 1100], b"#5.1.3"),
        (b"a@b", [b"c\0@d"], b"#5.1.3"),
        (b"a@b", [b""], b"#5.1.3"),
    ],
)
def test_bad_addresses(qmqp: Suite, sender: bytes, recipients: list[bytes], answer: bytes) -> None:
    """An address that is too long or has a NUL in it makes the whole message a permanent failure."""
    said = _say(qmqp, _frame(MESSAGE, sender, *recipients)).partition(b":")[2]
    assert said.startswith(b"D") and answer in said
    assert not os.listdir(qmqp.home / "queue/new") and not os.listdir(qmqp.home / "queue/cur")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"99999999999:",
        FRAME[:-1],
        FRAME[:-2],
        b"17:3:Hi\n,3:a@b,3:c@d,,",
        b"19:3:Hi\n,3:a@b,3:c@d,,,",
        b"4:9:ab,,",
        b"\0" * 1000,
    ],
)
def test_no_qmqp(qmqp: Suite, data: bytes) -> None:
    """What is no QMQP, or ends too early, gets no answer, and nothing is queued."""
    assert _say(qmqp, data) == b""
    assert not os.listdir(qmqp.home / "queue/new") and not os.listdir(qmqp.home / "queue/cur")


@pytest.mark.needs("qmqp-source")
def test_postfix_as_client(qmqp: Suite) -> None:
    """Postfix's qmqp-source hands over many messages on many connections."""
    command = ["qmqp-source", "-m", "20", "-s", "4", "-l", "5000", "-f", "bob@x.test", "-t", f"ann@{DOMAIN}"]
    subprocess.run([*command, f"{HOST}:{qmqp.port('qmqp')}"], check=True, timeout=60)
    assert len(qmqp.wait_for_mail(20)) == 20


# qm-qmqpc


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Run qm-qmqpc with servers, a message and an envelope; gives the exit code."""
    (tmp_path / "control").mkdir()

    def run(servers: str, message: bytes, envelope: bytes) -> int:
        (tmp_path / "control/qmqpservers").write_text(servers)
        (tmp_path / "envelope").write_bytes(envelope)
        (tmp_path / "message").write_bytes(message)
        env = {"PATH": "/usr/bin:/bin", "QMHOME": str(tmp_path)}
        with open(tmp_path / "message", "rb") as text, open(tmp_path / "envelope", "rb") as told:
            pipes = {"stdin": text, "stdout": told, "stderr": subprocess.PIPE}
            ended = subprocess.run([BIN / "qm-qmqpc"], **pipes, env=env, timeout=30, check=False)
        assert ended.stderr == b""
        return ended.returncode

    return run


@pytest.fixture
def server() -> Iterator[Callable[[bytes], int]]:
    """A server that reads one frame to its end and gives a fixed answer; called with it, gives the port."""
    listeners: list[subprocess.Popen[bytes]] = []

    def start(answer: bytes) -> int:
        script = (
            "import socket, sys\n"
            "s = socket.create_server(('127.0.0.1', 0))\n"
            "print(s.getsockname()[1], flush=True)\n"
            "c, _ = s.accept()\n"
            "data = b''\n"
            "while b',,' not in data[-2:] and (piece := c.recv(65536)): data += piece\n"
            "c.sendall(sys.argv[1].encode('latin-1'))\n"
        )
        process = subprocess.Popen(["python3", "-c", script, answer.decode("latin-1")], stdout=subprocess.PIPE)
        listeners.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in listeners:
        process.kill()
        process.communicate()


ENVELOPE = b"Fa@b\0Tc@d\0\0"


@pytest.mark.parametrize(
    ("answer", "code"), [(b"5:Kyes!,", 0), (b"3:Dno,", 31), (b"5:Zlate,", 71), (b"", 74), (b"0:,", 74)]
)
def test_what_the_server_says(client: Client, server: Callable[[bytes], int], answer: bytes, code: int) -> None:
    """The first K, Z or D of the answer is the exit code; without one it is not known what happened."""
    assert client(f"{HOST}:{server(answer)}\n", MESSAGE, ENVELOPE) == code


def test_servers_are_tried_in_turn(client: Client, server: Callable[[bytes], int]) -> None:
    """The first that can be connected to gets the message; one that answers is the last that is asked."""
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    assert client(f"not-an-address\n{HOST}:{port}\n{HOST}:{server(b'1:K,')}\n", MESSAGE, ENVELOPE) == 0
    assert client(f"{HOST}:{port}\n", MESSAGE, ENVELOPE) == 73


@pytest.mark.parametrize(
    ("servers", "envelope", "code"),
    [("", ENVELOPE, 55), ("127.0.0.1:1\n", b"Xa@b\0", 91), ("127.0.0.1:1\n", b"Fa@b\0Tc@d\0", 54)],
)
def test_what_is_wrong_here(client: Client, servers: str, envelope: bytes, code: int) -> None:
    """No servers; an envelope that is none, or ends too early, for which nobody is asked."""
    assert client(servers, MESSAGE, envelope) == code


def test_to_our_own(qmqp: Suite, client: Client) -> None:
    """qm-qmqpc and qm-qmqpd carry a message of some megabytes, with everything in it."""
    text = b"Subject: large\n\n" + bytes(range(1, 256)) * 12_000 + b"\n"
    envelope = b"Fbob@x.test\0Tann@%b\0Tann@%b\0\0" % (DOMAIN.encode(), DOMAIN.encode())
    assert client(f"{HOST}:{qmqp.port('qmqp')}\n", text, envelope) == 0
    for mail in qmqp.wait_for_mail(2):
        assert mail.endswith(text)


@pytest.mark.needs("qmqp-sink")
def test_postfix_as_server(client: Client, tmp_path: Path) -> None:
    """Postfix's qmqp-sink takes what qm-qmqpc hands over."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    sink = subprocess.Popen(["qmqp-sink", f"{HOST}:{port}", "10"])
    try:
        wait_for(lambda: client(f"{HOST}:{port}\n", MESSAGE, ENVELOPE) == 0, "qmqp-sink has taken it")
    finally:
        sink.kill()
        sink.wait()
