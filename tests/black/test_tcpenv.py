"""tcp-env under real super-servers: inetd, systemd's, and a tcpserver whose environment is taken away."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.peers import DnsAnswerer, accepts, free_port
from tests.harness.suite import BIN, Suite
from tests.harness.waiting import LIMIT_S, wait_for

OURS: Final = str(BIN / "tcp-env")
UCSPI: Final = "/usr/bin/tcpserver"
INETD: Final = "/usr/sbin/inetutils-inetd"
SYSTEMD: Final = "/usr/bin/systemd-socket-activate"
SHOW: Final = ("sh", "-c", 'env | grep -E "^(PROTO|TCP)"')
PEER: Final = "1.0.0.127.in-addr.arpa PTR"
BARE: Final = ("env", "-u", "PROTO")  # what no UCSPI server would do


@contextmanager
def _ucspi(
    *words: str, env: dict[str, str] | None = None, program: str = UCSPI, host: str = "127.0.0.1"
) -> Iterator[int]:
    """The port of a tcpserver that runs *words* for each connection."""
    argv = [program, "-1", "-HRl0", host, "0", *words]
    with subprocess.Popen(
        argv, env={"PATH": "/usr/bin:/bin", **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()
            server.wait(LIMIT_S)


def _ask(port: int, host: str = "127.0.0.1", source: str = "") -> tuple[dict[str, str], tuple[str, int]]:
    """What the program at *port* shows of its environment, and who asked."""
    with socket.create_connection((host, port), LIMIT_S, (source, 0) if source else None) as channel:
        me = channel.getsockname()[:2]
        text = channel.makefile().read()
    return dict(line.split("=", 1) for line in text.splitlines()), me


@pytest.mark.needs(UCSPI)
@pytest.mark.parametrize(
    ("script", "host"),
    [
        ({PEER: {"answer": ["Mx.Test."]}}, "mx.test"),
        ({PEER: {"rcode": "SERVFAIL"}}, "softdnserror"),
        ({PEER.replace("PTR", "A"): {"answer": ["192.0.2.1"]}}, None),
        ({}, None),
    ],
)
def test_who_is_there(tmp_path: Path, script: dict[str, object], host: str | None) -> None:
    """Addresses and ports are the socket's; names are DNS's, small; one that is not told now is softdnserror."""
    with (
        DnsAnswerer(tmp_path, script) as dns,
        _ucspi(*BARE, OURS, "-R", *SHOW, env={"DNSCACHEIP": f"127.0.0.1:{dns.port}", "TCPREMOTEINFO": "old"}) as port,
    ):
        env, (ip, theirs) = _ask(port)
    names = {} if host is None else {"TCPLOCALHOST": host, "TCPREMOTEHOST": host}
    assert env == {
        "PROTO": "TCP",
        "TCPLOCALIP": "127.0.0.1", "TCPLOCALPORT": str(port), "TCPREMOTEIP": ip, "TCPREMOTEPORT": str(theirs), **names,
    }  # fmt: skip


def test_ipv6(tmp_path: Path) -> None:
    """An IPv6 connection has PROTO TCP6 and twins, as under tcpserver."""
    with DnsAnswerer(tmp_path, {}) as dns:
        env = {"DNSCACHEIP": f"127.0.0.1:{dns.port}"}
        with _ucspi(*BARE, OURS, "-R", *SHOW, env=env, program=str(BIN / "tcpserver"), host="::1") as port:
            seen, (ip, theirs) = _ask(port, "::1")
    assert seen["PROTO"] == "TCP6"
    for prefix in ("TCP", "TCP6"):
        assert seen[f"{prefix}REMOTEIP"] == seen[f"{prefix}LOCALIP"] == ip == "::1"
        assert (seen[f"{prefix}LOCALPORT"], seen[f"{prefix}REMOTEPORT"]) == (str(port), str(theirs))


@pytest.mark.needs(UCSPI)
def test_who_is_told_already() -> None:
    """With PROTO it only runs the program: nothing is asked, nothing is changed."""
    with _ucspi("env", "TCPREMOTEHOST=told.example", OURS, *SHOW) as port:
        env, _ = _ask(port)
    assert (env["PROTO"], env["TCPREMOTEHOST"], env["TCPLOCALHOST"]) == ("TCP", "told.example", "0")


@pytest.mark.needs_root
@pytest.mark.needs(UCSPI)
def test_ident(tmp_path: Path) -> None:
    """-r, the default, asks the peer's machine; who reads the answer is not root but the home's qmaild."""
    peer = "127.113.0.3"  # port 113 is the protocol's; nobody else uses it at this address
    owners: list[int] = []

    def answer() -> None:
        with listener.accept()[0] as channel:
            asked = channel.recv(100).strip()
            here, there = channel.getsockname()[1], channel.getpeername()[1]
            owners.append(_owner(there, here))
            channel.sendall(asked + b":USERID:UNIX: joe\r\n")

    (tmp_path / "control").mkdir()
    (tmp_path / "control/roles").write_text("qmaild:64997:64997\n")
    with DnsAnswerer(tmp_path, {}) as dns, socket.create_server((peer, 113)) as listener:
        listener.settimeout(LIMIT_S)
        thread = threading.Thread(target=answer)
        thread.start()
        env = {"DNSCACHEIP": f"127.0.0.1:{dns.port}", "QMHOME": str(tmp_path)}
        with _ucspi(*BARE, OURS, *SHOW, env=env) as port:
            assert _ask(port, source=peer)[0]["TCPREMOTEINFO"] == "joe"
        thread.join(LIMIT_S)
        with _ucspi(*BARE, OURS, "-Rrt1", *SHOW, env=env) as port:  # and nobody answers
            assert "TCPREMOTEINFO" not in _ask(port, source=peer)[0]
    assert owners == [64997]


def _owner(local: int, remote: int) -> int:
    """The uid of the process whose connection from port *local* to port *remote* is, as /proc/net/tcp has it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == local and int(fields[2].split(":")[1], 16) == remote:
            return int(fields[7])
    raise AssertionError("there is no such connection")


@pytest.mark.parametrize("words", [[], ["-x", "true"], ["-t"], ["-t", "-1", "true"], ["-t", "x", "true"], ["true"]])
def test_it_cannot(words: list[str]) -> None:
    """A wrong command line, and a descriptor 0 that is no TCP connection, are exit 111."""
    one, other = socket.socketpair()
    with one, other:
        for stdin in (subprocess.DEVNULL, one):
            done = subprocess.run(
                [OURS, *words], env={"PATH": "/usr/bin:/bin"}, stdin=stdin, capture_output=True, timeout=60, check=False
            )
            assert (done.returncode, done.stdout) == (111, b"")
            assert done.stderr.startswith(b"tcp-env: fatal: ")


def test_another_protocol() -> None:
    """A datagram socket is no TCP connection, though it has two ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))
        channel.connect(channel.getsockname())
        done = subprocess.run([OURS, "-R", "true"], stdin=channel, capture_output=True, timeout=60, check=False)
    assert done.returncode == 111


def test_a_peer_that_has_gone(tmp_path: Path) -> None:
    """A connection that was reset before it was looked at is exit 111."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        peer = socket.create_connection(door.getsockname(), LIMIT_S)
        channel, _ = door.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with channel:
            done = subprocess.run([OURS, "true"], stdin=channel, capture_output=True, timeout=60, check=False)
    assert done.returncode == 111


def _inetd(port: int, folder: Path, argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The command line of an inetd that runs *argv* as root for each connection."""
    line = f"127.0.0.1:{port} stream tcp nowait root {argv[0]} {os.path.basename(argv[0])} {' '.join(argv[1:])}\n"
    (folder / "inetd.conf").write_text(line)
    return [INETD, "-d", str(folder / "inetd.conf")]


def _systemd(port: int, folder: Path, argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The same, by what does for one socket as systemd does for a unit with Accept=yes."""
    settings = [f"--setenv={name}={value}" for name, value in env.items()]
    return [SYSTEMD, f"--listen=127.0.0.1:{port}", "--accept", "--inetd", *settings, *argv]


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(_inetd, marks=pytest.mark.needs(INETD)),
        pytest.param(_systemd, marks=pytest.mark.needs(SYSTEMD)),
    ],
)
def test_mail(suite: Suite, tmp_path: Path, server: Callable[..., list[str]]) -> None:
    """A super-server and qm-smtpd take mail: its Received field knows the peer, who sees no line of the log."""
    port = free_port()
    with DnsAnswerer(tmp_path, {PEER: {"answer": ["client.example."]}}) as dns, (tmp_path / "log").open("wb") as log:
        env = {**suite.env, "DNSCACHEIP": f"127.0.0.1:{dns.port}"}
        argv = server(port, tmp_path, [OURS, "-R", "qm-smtpd"], env)
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=log)
        try:
            wait_for(lambda: accepts(port), "the server")
            replies = _send(port)
        finally:
            process.terminate()
            process.wait(LIMIT_S)
    assert [reply[:3] for reply in replies] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert b"\nReceived: from me (client.example [127.0.0.1])\n" in suite.wait_for_mail()[0]
    assert (b"qm-smtpd: " in (tmp_path / "log").read_bytes()) == (server is _systemd)


def _send(port: int) -> list[bytes]:
    """All that is heard while a message for ann is sent."""
    with Dialogue(port) as peer:
        for text in (
            b"HELO me",
            b"MAIL FROM:<>",
            b"RCPT TO:<ann@test.example>",
            b"DATA",
            b"A: b\r\n\r\nHi\r\n.",
            b"QUIT",
        ):
            peer.say(text + b"\r\n")
        return peer.rest().splitlines()
