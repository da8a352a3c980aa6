"""rblsmtpd behind tcpserver and by itself, with a name server that this test scripts, beside that of ucspi-tcp."""

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.peers import DnsAnswerer
from tests.harness.tcpserver import ROOT, TcpServer
from tests.harness.waiting import LIMIT_S

QUICK = ("-RHl0", "-c1")  # one worker
TALK = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nvrfy\r\n\r\nRSET\r\nquit\r\nNOOP\r\n"
THEIRS = "/usr/bin/rblsmtpd"
OURS = str(ROOT / "bin" / "rblsmtpd")


def _run(program: str, *words: str, env: dict[str, str], talk: bytes = TALK) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [program, *words], env={"PATH": "/usr/bin:/bin", "QMHOME": "/", **env}, input=talk, capture_output=True,
        timeout=LIMIT_S, check=False, user="nobody" if os.geteuid() == 0 else None,
    )  # fmt: skip
    return done.returncode, done.stdout, re.sub(rb"pid \d+", b"pid N", done.stderr)


@pytest.mark.needs(THEIRS)
@pytest.mark.parametrize("options", [("-r", "unused.test"), ("-b", "-r", "unused.test"), ("-t0", "-runused.test")])
@pytest.mark.parametrize("text", ["", "later", "-never", "-", "long " * 100, "\x1b[2Jbad\xff\r\n"])
@pytest.mark.parametrize("talk", [TALK, b"", b"QUIT", b"QUIT\n", b"\n\n"])
def test_as_ucspi_tcp(options: tuple[str, ...], text: str, talk: bytes) -> None:
    """With RBLSMTPD in the environment: the same answers, log line and exit code as ucspi-tcp's."""
    env = {"TCPREMOTEIP": "192.0.2.1", "RBLSMTPD": text}
    program = (*options, "sh", "-c", "echo served; exit 7")
    assert _run(OURS, *program, env=env, talk=talk) == _run(THEIRS, *program, env=env, talk=talk)


@pytest.mark.parametrize("words", [(), ("-r", "a b", "true"), ("-t", "x", "true"), ("-z", "true"), ("-r",)])
def test_usage(words: tuple[str, ...]) -> None:
    """What it does not understand is exit 100, with the usage."""
    code, out, log = _run(OURS, *words, env={})
    assert (code, out) == (100, b"")
    assert b"usage: rblsmtpd" in log


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nobody can come to, unlike to pytest's own directories."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def dns(tmp_path: Path) -> Iterator[DnsAnswerer]:
    script: dict[str, Any] = {
        "1.0.0.127.bl.test TXT": {"answer": ['"go away"']},
        "1.0.0.127.bl.test A": {"answer": ["127.0.0.3"]},
        "1.0.0.127.wl.test A": {"answer": ["127.0.0.2"]},
        "1.0.0.127.full.test TXT": {"answer": ['"open resolver"']},
        "1.0.0.127.full.test A": {"answer": ["127.255.255.254"]},
        "1.0.0.127.dead.test A": {"rcode": "SERVFAIL"},
        "1.0.0.127.dead.test TXT": {"rcode": "SERVFAIL"},
        ".".join("1" + "0" * 31) + ".bl.test TXT": {"answer": ['"six"']},
        ".".join("1" + "0" * 31) + ".bl.test A": {"answer": ["127.0.0.2"]},
    }
    with DnsAnswerer(tmp_path, script) as answerer:
        yield answerer


def _serve(folder: Path, dns: DnsAnswerer, *options: str, host: str = "127.0.0.1", cold: bool = False) -> TcpServer:
    env = {"DNSCACHEIP": f"127.0.0.1:{dns.port}"}
    user = ("-u65534", "-g65534") if os.geteuid() == 0 else ()
    return TcpServer(
        folder, *QUICK, *user, program=(OURS if cold else "rblsmtpd", *options, "probe"), env=env, host=host, cold=cold
    )


@pytest.mark.parametrize("cold", [False, True])
def test_the_listed_and_the_others(folder: Path, dns: DnsAnswerer, cold: bool) -> None:
    """A listed peer is told so, and the log too; a peer that no list has gets the program, in the same process."""
    server = _serve(folder, dns, "-r", "bl.test", cold=cold)
    assert server.ask("QUIT\r") == b"220 rblsmtpd.local\r\n221 rblsmtpd.local\r\n"
    assert server.ask("RCPT\nQUIT").splitlines()[1] == b"451 go away"
    server.wait_for_log(": 451 go away\n", 2)
    assert server.report("127.0.0.2")["env"]["TCPREMOTEIP"] == "127.0.0.2"
    assert len({server.report("127.0.0.2")["pid"] for _ in range(3)}) == (3 if cold else 1)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (("-b", "-r", "bl.test"), b"553 go away"),
        (("-r", "bl.test", "-b"), b"451 go away"),
        (("-b", "-B", "-r", "bl.test"), b"451 go away"),
        (("-c", "-C", "-r", "dead.test"), None),
        (("-a", "wl.test", "-r", "bl.test"), None),
        (("-r", "bl.test", "-a", "wl.test"), b"451 go away"),
        (("-r", "bl.test=4"), None),
        (("-r", "bl.test=127.0.0.2-4"), b"451 go away"),
        (("-r", "full.test"), None),
        (("-c", "-b", "-r", "full.test"), b"451 temporary RBL lookup error"),
        (("-b", "-r", "dead.test", "-r", "bl.test"), b"451 go away"),
        (("-c", "-r", "dead.test"), b"451 temporary RBL lookup error"),
        (("-a", "dead.test", "-r", "bl.test"), None),
        (("-c", "-a", "dead.test", "-b", "-r", "bl.test"), b"451 go away"),
        ((), None),
    ],
)
def test_options(folder: Path, dns: DnsAnswerer, options: tuple[str, ...], answer: bytes | None) -> None:
    """Options count in their order; what cannot be asked is open or closed, and never bounces."""
    server = _serve(folder, dns, "-t0", *options)
    assert server.ask("exit 0") == (answer + b"\r\n" if answer else b"")
    assert server.stop() == 0


def test_ipv6(folder: Path, dns: DnsAnswerer) -> None:
    """A peer of IPv6 is looked up by nibbles."""
    server = _serve(folder, dns, "-t0", "-r", "bl.test", host="::1")
    assert server.ask("exit 0") == b"451 six\r\n"
    assert server.stop() == 0


def test_a_list_is_asked_once(folder: Path, dns: DnsAnswerer) -> None:
    """The answers about a peer that comes again are remembered by its worker."""
    server = _serve(folder, dns, "-t0", "-r", "bl.test")
    for _ in range(3):
        server.ask("exit 0")
    assert dns.asked() == ["1.0.0.127.bl.test TXT", "1.0.0.127.bl.test A"]
    assert server.stop() == 0


def test_the_time_of_the_listed() -> None:
    """Who is listed and says nothing is dropped when its time is over, and that is exit 0."""
    ours, peer = socket.socketpair()
    env = {"PATH": "/usr/bin:/bin", "RBLSMTPD": "no"}
    user = "nobody" if os.geteuid() == 0 else None
    with peer, subprocess.Popen([OURS, "-t1", "true"], stdin=ours, stdout=ours, env=env, user=user) as process:
        ours.close()
        peer.settimeout(LIMIT_S)
        assert peer.recv(100) == b"220 rblsmtpd.local\r\n"
        assert peer.recv(100) == b""
        assert process.wait(LIMIT_S) == 0


@pytest.mark.needs_root
def test_it_is_never_root() -> None:
    """Started as root it becomes qmaild, or says that it cannot."""
    done = subprocess.run(
        [OURS, "id", "-u"], env={"PATH": "/usr/bin:/bin", "RBLSMTPD": ""}, capture_output=True, check=False
    )
    assert (done.returncode == 0 and done.stdout != b"0\n") or (done.returncode == 111 and b"qmaild" in done.stderr)
