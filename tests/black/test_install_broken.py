"""qm install that is cut short: by a kill between any two of its steps, by a full disk, by another one at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.admin.action import LOCK
from tests.harness.machine import Machine, machine_in, snapshot
from tests.harness.suite import BIN

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("unshare", "nsenter", "useradd", "strace", "flock")]
COPY = "chmod"  # once for each of a thousand programs
CHANGES = "symlink,fchown,chown,fsync"  # what makes a step count
STRIDE = 12  # of these calls between two kills, one more each time
DRIFTS = ("servercert.pem", "__pycache__")  # has a new key, or a time, each time


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    """A machine without a mail system."""
    with machine_in(open_folder) as machine:
        yield machine


def _tree(machine: Machine) -> dict[str, object]:
    """What lies in the home, but for what is never the same twice."""
    found = snapshot(machine.home)
    return {name: found[name][:4] for name in found if not any(word in name for word in DRIFTS)}


def _assert_named(machine: Machine, command: str) -> None:
    """check-install does not take what is half done for whole."""
    done = machine.qm("check-install")
    assert (done.returncode, f"qm {command} has not come to its end; run it again" in done.stdout) == (1, True)


def _killed(machine: Machine, calls: str, count: int) -> bool:
    """Whether an install ended by a kill before call *count* of *calls*."""
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    kill = ["-e", f"inject={calls}:signal=KILL:when={count}"]
    done = machine.run(*strace, *kill, BIN / "qm", "install", "mail.test.example", "--home", machine.home)
    assert done.returncode in (0, -9, 137), done.stdout
    return done.returncode != 0


def test_killed_again_and_again(machine: Machine) -> None:
    """Each install goes on from where the last one was killed, until all is as if none had been."""
    kills = 0
    assert _killed(machine, COPY, 300)
    while _killed(machine, CHANGES, STRIDE + kills):
        kills += 1
        _assert_named(machine, "install")
        if (machine.home / "rc").exists():
            assert machine.run(machine.home / "rc", "status").returncode in (3, 111)
        assert kills < 40
    assert kills > 5
    assert machine.qm("check-install").returncode == 0
    assert "nothing was left to do" in machine.install()
    litter = [str(path) for path in machine.home.rglob("*") if path.name.endswith((".tmp", ".new", ".old", ".qm-new"))]
    assert not litter
    found = _tree(machine)
    machine.sh("rm -r *")
    machine.install()
    assert found == _tree(machine)


def test_a_full_disk(machine: Machine) -> None:
    """It says what it could not write, and goes on from there when there is room."""
    machine.home.mkdir()
    machine.succeed("mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "small", machine.home)
    for size in ("4k", "64k", "400k", "2m", "12m"):
        machine.succeed("mount", "-o", f"remount,size={size}", machine.home)
        done = machine.qm("install", "mail.test.example")
        assert done.returncode == 111, done.stdout
        assert "No space left on device" in done.stdout
        assert "Traceback" not in done.stdout
        if (machine.home / "control").exists():
            _assert_named(machine, "install")
    machine.succeed("mount", "-o", "remount,size=500m", machine.home)
    machine.install()
    assert machine.qm("check-install").returncode == 0


@pytest.mark.parametrize("words", [("install", "mail.test.example"), ("uninstall",), ("replace-sendmail",)])
def test_one_at_a_time(machine: Machine, words: tuple[str, ...]) -> None:
    """What would change a machine that another command is changing does nothing."""
    done = machine.run("flock", LOCK, BIN / "qm", *words, "--home", machine.home)
    assert done.returncode == 111, done.stdout
    assert "another qm command is changing this machine" in done.stdout
    assert not machine.home.exists()


def test_uninstall_is_killed(machine: Machine) -> None:
    """One that is killed is finished by the next, when its own program has gone by a checkout's, or made good again."""
    machine.install("--skel")
    _kill_uninstall(machine)
    machine.install("--skel")
    assert not (machine.home / "lib.old").exists()
    assert machine.qm("check-install").returncode == 0
    assert "nothing was left to do" in machine.install("--skel")
    _kill_uninstall(machine)
    assert "lib.old and all below it" in machine.succeed(BIN / "qm", "uninstall", "--home", machine.home)
    assert not [path.name for path in machine.home.iterdir() if path.name.startswith(("lib", "unfinished"))]
    assert machine.run(BIN / "qm", "uninstall", "--home", machine.home).returncode == 100
    assert f"{machine.home}/rc: missing; qm install" in machine.qm("check-install").stdout


def _kill_uninstall(machine: Machine) -> None:
    """In the midst of the removal of its programs."""
    calls = "unlink,unlinkat,rmdir,rename"
    for count in (4, 40, 300):
        kill = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={count}"]
        done = machine.run("strace", "-qq", "-o", "/dev/null", *kill, machine.home / "lib/bin/qm", "uninstall")
        assert done.returncode in (-9, 137), done.stdout
        _assert_named(machine, "uninstall")
    assert not (machine.home / "lib").exists(), "all or nothing of the programs is there"
    assert (machine.home / "lib.old").exists()
