"""tcpclient, beside that of ucspi-tcp."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.harness.peers import DnsAnswerer, free_port
from tests.harness.tcpserver import ROOT
from tests.harness.waiting import LIMIT_S

OURS: Final = str(ROOT / "bin" / "tcpclient")
THEIRS: Final = "/usr/bin/tcpclient"
SCRIPT: Final = (
    'env | grep -E "^(PROTO|TCP)" | grep -v LOCALPORT; read line <&6; echo "$line" >&7; echo "got $line"; exit 4'
)


class Server:
    """Greets each connection with a line, and keeps what comes back."""

    def __init__(self, address: str) -> None:
        self._door = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.port = str(self._door.getsockname()[1])
        self.heard: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                channel, peer = self._door.accept()
            except OSError:
                return
            with channel:
                channel.settimeout(LIMIT_S)
                self.peers.append(peer[:2])
                channel.sendall(b"hello\n")
                with channel.makefile("rb") as stream:
                    self.heard.append(stream.read())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._door.shutdown(socket.SHUT_RDWR)
            self._thread.join(LIMIT_S)
            self._door.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server("127.0.0.1")
    yield found
    found.stop()


def _run(program: str, *words: str, env: dict[str, str] | None = None) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [program, *words], env={"PATH": "/usr/bin:/bin", **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return done.returncode, sorted(done.stdout.decode().splitlines()), done.stderr.decode()


@pytest.mark.needs(THEIRS)
@pytest.mark.parametrize(
    "options",
    [
        ("-RHl0",),
        ("-v", "-RHl0"),
        ("-qRHl", "me.test"),
        ("-DRHl0", "-T", "1+1"),
        ("-RHl0", "-i127.0.0.1"),
        ("-dRHl0",),
        ("-rHl0", "-t", "1"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0"])
def test_as_ucspi_tcp(server: Server, options: tuple[str, ...], host: str) -> None:
    """Environment, descriptors, exit code and log are those of ucspi-tcp's; what is not known is not there."""
    words = (*options, host, server.port, "sh", "-c", SCRIPT)
    env = {"TCPREMOTEHOST": "left", "TCPREMOTEINFO": "over", "PROTO": "X"}
    ours, theirs = _run(OURS, *words, env=env), _run(THEIRS, *words, env=env)
    assert ours == theirs
    assert ours[0] == 4
    assert "got hello" in ours[1]


def test_what_it_writes_arrives(server: Server) -> None:
    """Descriptor 7 leads to the server."""
    assert _run(OURS, "-RHl0", "127.0.0.1", server.port, "sh", "-c", SCRIPT)[0] == 4
    server.stop()
    assert server.heard == [b"hello\n"]


def test_our_own_end(server: Server) -> None:
    """-p and -i say where the connection comes from."""
    port = free_port("127.0.0.2")
    assert _run(OURS, "-RHl0", "-i", "127.0.0.2", "-p", str(port), "127.0.0.1", server.port, "sh", "-c", SCRIPT)[0] == 4
    server.stop()
    assert server.peers == [("127.0.0.2", port)]


def test_ipv6() -> None:
    """With IPv6 PROTO is TCP6, and each variable has its twin."""
    server = Server("::1")
    code, out, _ = _run(OURS, "-RHl0", "::1", server.port, "sh", "-c", SCRIPT)
    server.stop()
    assert code == 4
    assert {"PROTO=TCP6", "TCPREMOTEIP=::1", "TCP6REMOTEIP=::1", f"TCPREMOTEPORT={server.port}"} <= set(out)


@pytest.mark.parametrize(("words", "code"), [(("-4", "0"), 4), (("-6", "127.0.0.1"), 111), (("-6", "-4", "0"), 4)])
def test_one_family(server: Server, words: tuple[str, ...], code: int) -> None:
    """-4 and -6 take addresses of that kind only; the last one counts."""
    *options, host = words
    assert _run(OURS, "-RHl0", *options, host, server.port, "sh", "-c", SCRIPT)[0] == code


def test_names(server: Server, tmp_path: Path) -> None:
    """-h looks the server's name up, -H does not; the last one counts."""
    script = {"1.0.0.127.in-addr.arpa PTR": {"answer": ["server.test."]}}
    with DnsAnswerer(tmp_path, script) as dns:
        env = {"DNSCACHEIP": f"127.0.0.1:{dns.port}"}
        for options, named in ((("-H", "-h"), True), (("-h", "-H"), False)):
            out = _run(OURS, "-Rl0", *options, "127.0.0.1", server.port, "sh", "-c", SCRIPT, env=env)[1]
            assert ("TCPREMOTEHOST=server.test" in out) is named


@pytest.mark.parametrize("quiet", [False, True])
def test_nobody_there(quiet: bool) -> None:
    """Nobody who answers is exit 111, and said unless -q is given; so is a host that nobody knows."""
    option = "-q" if quiet else "-Q"
    for host, port in (("127.0.0.1", str(free_port())), ("-x..test", "25"), ("127.0.0.1", "no-such-service")):
        code, out, log = _run(OURS, option, "-RHl0", "--", host, port, "true")
        assert (code, out) == (111, [])
        assert (log == "") == quiet


@pytest.mark.parametrize("words", [(), ("a",), ("a", "1"), ("-T", "x", "a", "1", "b"), ("-p", "99999", "a", "1", "b")])
def test_usage(words: tuple[str, ...]) -> None:
    """What it does not understand is exit 100, with the usage."""
    code, out, log = _run(OURS, *words)
    assert (code, out) == (100, [])
    assert "usage: tcpclient" in log
