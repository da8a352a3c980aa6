"""What ps shows of a mail system: each process names its program and its job."""

import shlex
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.busy import busy
from tests.harness.dialogue import Dialogue
from tests.harness.scene import title_of
from tests.harness.suite import BIN, Suite
from tests.harness.waiting import LIMIT_S, wait_for

STARTED = ("qm-queued", "qm-userd", "qm-lspawn ./Maildir/", "qm-rspawn", "qm-send")  # by qm-start
WORKERS = (
    "qm-queued: takes messages in",
    "qm-userd: checks passwords",
    "qm-local: delivers",
    "qm-remote: sends",
    "qm-send: writes reports",
    "qm-tlsd: speaks TLS",
    "qm-popup: talks to clients",
)
PROGRAMS = ("/bin/sh -c cat hold", "cat hold")  # of a user's .qmail file
FOLLOWING = ("qm-pop3d Maildir", "checkpassword qm-pop3d Maildir")  # what became of a qm-popup


def _services(suite: Suite) -> list[list[str]]:
    """The command lines of the services file."""
    text = (suite.home / "services").read_text().splitlines()
    lines = [line.partition(":")[2] for line in text if not line.startswith("#")]
    return [[word for word in shlex.split(line) if "=" not in word] for line in lines if line]


@pytest.mark.needs_root
def test_every_process(make_suite: Callable[..., Suite], open_folder: Path, tmp_path: Path) -> None:
    """In the middle of every act, ps shows these titles and no others, and no address or name of a stranger's."""
    with busy(make_suite(open_folder), tmp_path) as held:
        suite, titles = held.suite, {title_of(pid) for pid in (held.suite.supervisor_pid, *held.suite.pids())}
        services = _services(suite)
    lines = {" ".join(line) for line in services} | {"qm-log log", f"qm-supervise {suite.home}"}
    chains = {" ".join(["tcpserver:", *_following(line)]) for line in services if line[0] == "tcpserver"}
    seen = {title for title in titles if title not in lines and title not in chains}
    assert lines <= titles
    assert {*STARTED, *WORKERS, *FOLLOWING} <= seen <= {*STARTED, *WORKERS, *FOLLOWING, *PROGRAMS}
    assert len(chains & titles) >= 2  # those that have clients


def _following(line: list[str]) -> list[str]:
    """The program that a tcpserver's command line runs."""
    return line[next(at for at, word in enumerate(line) if word.startswith("qm-")) :]


def test_a_tcpserver_by_hand(make_suite: Callable[..., Suite], open_folder: Path) -> None:
    """Typed in a shell it looks as when rc starts it, and so do its workers."""
    command = [str(BIN / "tcpserver"), "-1", "-HRl0", "127.0.0.1", "0", "qm-smtpd", "mail.test.example"]
    suite = make_suite(open_folder)
    with subprocess.Popen(command, env=suite.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            assert title_of(server.pid) == " ".join(["tcpserver", *command[1:]])
            with Dialogue(port) as client:
                assert client.line()[:3] in (b"220", b"421")
                children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
                assert [title_of(int(pid)) for pid in children] == ["tcpserver: qm-smtpd mail.test.example"]
        finally:
            server.terminate()
            assert server.wait(LIMIT_S) == 0


@pytest.mark.parametrize("program", ["recordio", "fixcrio"])
def test_who_stands_between(tmp_path: Path, program: str) -> None:
    """The child that passes the bytes on says so."""
    command = [str(BIN / program), "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(
            lambda: (
                [title_of(int(pid)) for pid in children.read_text().split()]
                == [f"{program}: between a program and its peer"]
            ),
            "its title",
        )
        process.communicate(b"", LIMIT_S)


@pytest.mark.needs_root
def test_who_asks_for_names(tmp_path: Path) -> None:
    """A tcpserver that is root has a child ask an ident server, which says so and is not root."""
    peer = "127.113.0.2"  # port 113 is the protocol's; nobody else uses it at this address
    command = [str(BIN / "tcpserver"), "-1", "-H", "-l0", "-t5", peer, "0", "cat"]
    with socket.create_server((peer, 113)) as ident:
        ident.settimeout(LIMIT_S)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                with socket.create_connection((peer, port), LIMIT_S, (peer, 0)), ident.accept()[0]:
                    asker = _below(_below(server.pid))
                    assert title_of(asker) == "tcpserver: asks for names"
                    assert Path(f"/proc/{asker}").stat().st_uid != 0
                    assert "Uid:\t0\t" not in Path(f"/proc/{asker}/status").read_text()
            finally:
                server.terminate()
                assert server.wait(LIMIT_S) == 0


def _below(pid: int) -> int:
    """The child of *pid*."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
