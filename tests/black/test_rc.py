"""rc and qm-supervise: starting, watching and stopping services, here small programs of this machine."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.supervise import LOCK
from qm.unix import owner
from tests.harness.suite import Suite, wait_for

SLEEPER = "sh -c 'echo here is one; exec sleep 1000'"


class Home:
    """A home whose services are no mail programs."""

    def __init__(self, suite: Suite) -> None:
        self.path = suite.home
        self.log = suite.log
        self.suite = suite

    def services(self, **commands: str) -> None:
        (self.path / "services").write_text("".join(f"{name}: {line}\n" for name, line in commands.items()))

    def rc(self, command: str) -> tuple[int, str]:
        """rc's exit code and words; fails if something keeps its output open."""
        done = subprocess.run([self.path / "rc", command], capture_output=True, timeout=60, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    def supervisor(self) -> int:
        found = owner.find(str(self.path / LOCK))
        assert found is not None
        return found.pid

    def pid(self, service: str) -> int:
        """The pid that status shows; 0: none."""
        found = re.search(rf"^{service} .* pid (\d+)", self.rc("status")[1], re.MULTILINE)
        return int(found[1]) if found else 0


@pytest.fixture
def home(make_suite: Callable[[], Suite]) -> Iterator[Home]:
    home = Home(make_suite())
    home.services(one=SLEEPER, two=SLEEPER)
    yield home
    home.rc("stop")


def _open_files(pids: list[int]) -> set[str]:
    return {os.readlink(path) for pid in pids for path in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize(("command", "code"), [("status", 3), ("stop", 0), ("reload", 7), ("nonsense", 2)])
def test_exit_codes_when_nothing_runs(home: Home, command: str, code: int) -> None:
    """The LSB's exit codes for a system that does not run."""
    assert home.rc(command)[0] == code


def test_start_status_stop(home: Home) -> None:
    """start comes back when all serve, status shows them, stop leaves none of their processes."""
    assert home.rc("start")[0] == 0
    code, text = home.rc("status")
    assert code == 0
    assert re.search(r"^one +up +since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, pid \d+ as \S+$", text, re.MULTILINE)
    pids = [home.supervisor(), home.pid("one"), home.pid("two"), home.pid("log")]
    assert home.rc("stop") == (0, "stopped\n")
    wait_for(lambda: not any(_runs(pid) for pid in pids), "all of them are gone")
    assert home.rc("status") == (3, "not running\n")
    assert home.log().count("here is one") == 2


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_start_changes_nothing(home: Home) -> None:
    """start says that it runs already, and succeeds."""
    home.rc("start")
    pid = home.supervisor()
    assert home.rc("start") == (0, f"already running, pid {pid}\n")
    assert home.supervisor() == pid


def test_restart(home: Home) -> None:
    """restart makes new processes, also with another services file."""
    home.rc("start")
    before = home.supervisor()
    home.services(three=SLEEPER)
    assert home.rc("restart")[0] == 0
    assert home.supervisor() != before
    assert home.pid("three")
    assert not home.pid("one")


def test_the_terminal_is_let_go(home: Home) -> None:
    """What start leaves running holds neither the terminal nor the pipes of who typed it, and has another session."""
    controller, terminal = pty.openpty()
    try:
        name = os.ttyname(terminal)
        subprocess.run([home.path / "rc", "start"], stdin=terminal, stdout=terminal, stderr=terminal, check=True)
        pids = [home.supervisor(), home.pid("one"), home.pid("log")]
        assert name not in _open_files(pids)
        assert all(os.getsid(pid) != os.getsid(0) for pid in pids)
    finally:
        os.close(controller)
        os.close(terminal)


def test_the_environment_is_clean(home: Home) -> None:
    """Of the environment of who typed start, services get nothing but PATH and the home."""
    subprocess.run([home.path / "rc", "start"], env={**os.environ, "SECRET": "1"}, capture_output=True, check=True)
    entries = Path(f"/proc/{home.pid('one')}/environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0] for entry in entries} - {b""}
    assert {b"PATH", b"QMHOME"} <= names <= {b"PATH", b"QMHOME", b"TZ", b"LANG", b"PWD", b"OLDPWD", b"_", b"SHLVL"}


def test_a_service_has_an_environment_of_its_own(home: Home) -> None:
    """Words NAME=VALUE before a command are in that service's environment and in no other's."""
    home.services(one="SUBMISSION= TWO='a b' " + SLEEPER, two=SLEEPER)
    home.rc("start")
    one, two = (Path(f"/proc/{home.pid(name)}/environ").read_bytes().split(b"\0") for name in ("one", "two"))
    assert {b"SUBMISSION=", b"TWO=a b"} <= {*one}
    assert not [entry for entry in two if entry.startswith((b"SUBMISSION", b"TWO"))]


def test_what_dies_is_started_again(home: Home) -> None:
    """A service that is killed comes back, and its death is in the log."""
    home.suite.allowed_alerts.append("one ended with signal 9")
    home.rc("start")
    before = home.pid("one")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: home.pid("one") not in (0, before), "a new process")
    assert "qm-supervise: alert: one ended with signal 9; starting it again in 0.25 s" in home.log()


def test_a_logger_that_dies_loses_no_line(home: Home) -> None:
    """What services say while there is no logger is written by the next one."""
    home.suite.allowed_alerts.append("log ended with signal 9")
    home.services(one="sh -c 'read line <fifo; echo said after $line; exec sleep 1000'")
    os.mkfifo(home.path / "fifo")
    home.rc("start")
    before = home.pid("log")
    os.kill(before, signal.SIGKILL)
    (home.path / "fifo").write_text("all\n")
    wait_for(lambda: "said after all" in home.log(), "the line")
    assert home.pid("log") not in (0, before)


def test_a_killed_supervisor_leaves_nothing_in_the_way(home: Home) -> None:
    """After a SIGKILL of the supervisor, start ends what it left and starts anew."""
    home.rc("start")
    before = home.pid("one")
    os.kill(home.supervisor(), signal.SIGKILL)
    wait_for(lambda: owner.find(str(home.path / LOCK)) is None, "its end")
    assert home.rc("status")[0] == 3
    assert home.rc("start")[0] == 0
    assert home.pid("one") != before
    wait_for(lambda: not _runs(before), "the end of the old one")
    assert "a supervisor was killed; ended what it left: one, two" in home.log()


def test_a_broken_services_file_is_named(home: Home) -> None:
    """start says file and line, and starts nothing."""
    (home.path / "services").write_text("one: true\nnonsense\n")
    code, text = home.rc("start")
    assert code == 1
    assert "services:2: not NAME: COMMAND LINE" in text
    assert home.rc("status")[0] == 3


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_services_of_others_are_not_run(home: Home, mode: int) -> None:
    """A services file that others may write is refused: it would be run as who starts it."""
    (home.path / "services").chmod(mode)
    code, text = home.rc("start")
    assert code == 1
    assert "services: others may write it" in text


def test_a_service_that_cannot_start_is_named(home: Home) -> None:
    """A program that is not there makes start fail, and status say which."""
    home.suite.allowed_alerts.append("two ended with exit code 100")
    home.services(one=SLEEPER, two="no-such-program --serve")
    home.rc("start")
    home.suite.wait_for_log("no-such-program: fatal: cannot run: No such file or directory")
    wait_for(lambda: home.rc("status")[0] == 1, "a service that is down")
    assert re.search(r"^two +down ", home.rc("status")[1], re.MULTILINE)


def test_run_stays_in_the_foreground(home: Home) -> None:
    """run is the supervisor itself: it ends with 0 after SIGTERM."""
    process = subprocess.Popen([home.path / "rc", "run"], stdin=subprocess.DEVNULL)
    wait_for(lambda: home.rc("status")[0] == 0, "all services")
    assert home.supervisor() == process.pid
    process.terminate()
    assert process.wait(30) == 0
