"""Running a command of a .qmail file (qmail.md 13.6)."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.local import command
from qm.local.command import Ended
from qm.unix import oversee
from tests.harness.waiting import wait_for

ENV = {b"PATH": b"/usr/bin:/bin", b"WORD": b"a b\n"}


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The message; the current directory is a home."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "message").write_bytes(b"Subject: x\n\nbody\n")
    fd = os.open(tmp_path / "message", os.O_RDONLY)
    yield fd
    os.close(fd)


def _run(text: bytes, message: int, *, limit_s: float = 20, output_max: int = 3000) -> Ended:
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        return command.run(text, message, ENV, limit_s=limit_s, output_max=output_max)
    finally:
        assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor is left open"
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_input_and_output(message: int) -> None:
    """The shell gets the message on 0, and what it writes on 1 and 2 comes back in order."""
    assert _run(b'cat; echo "$WORD" >&2; pwd', message) == Ended(
        0, b"Subject: x\n\nbody\na b\n\n" + os.getcwdb() + b"\n"
    )


@pytest.mark.parametrize(
    ("text", "code"), [(b"exit 0", 0), (b"exit 99", 99), (b"exit 255", 255), (b"", 0), (b"no-such-program", 127)]
)
def test_exit_codes(message: int, text: bytes, code: int) -> None:
    """The exit code is told."""
    assert _run(text, message).code == code


def test_signals(message: int) -> None:
    """So is a signal, as a negative number."""
    assert _run(b"kill -SEGV $$", message).code == -signal.SIGSEGV


def test_signal_settings(message: int) -> None:
    """A program finds SIGPIPE and SIGXFSZ as a login shell has them, and no signal blocked."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        output = _run(b"grep -E '^Sig(Blk|Ign)' /proc/self/status", message).output
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    blocked, ignored = (int(line.split()[1], 16) for line in output.splitlines())
    assert blocked == 0
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    assert _run(b"yes | head -1", message) == Ended(0, b"y\n")


def _passed_on(fd: int) -> bool:
    """Whether whoever runs the tests has given us *fd* to give on."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # of the listing itself


def test_process_group_and_descriptors(message: int) -> None:
    """A program leads a process group of its own, and has no descriptor of ours but 0, 1 and 2."""
    ours = {number for number in os.listdir("/proc/self/fd") if not _passed_on(int(number))}
    leader, group, *descriptors = _run(b"cut -d' ' -f1,5 /proc/$$/stat; ls /proc/$$/fd", message).output.split()
    assert leader == group
    assert not ours & {os.fsdecode(number) for number in descriptors} - {"0", "1", "2"}


def test_much_output(message: int) -> None:
    """Of endless output the beginning is kept, and the program is not held up."""
    ended = _run(b"head -c 5000000 /dev/zero; echo end", message, output_max=1000)
    assert ended == Ended(0, bytes(1000))


@pytest.mark.parametrize("most", [0, 1])
def test_no_room_for_output(message: int, most: int) -> None:
    """Where there is no room for output a program still runs."""
    assert _run(b"echo xy", message, output_max=most) == Ended(0, b"xy"[:most])


def test_background_holds_up_nothing(message: int, tmp_path: Path) -> None:
    """A program is done when it ends, also if it leaves one in the background that keeps the output open."""
    ended = _run(b"sleep 60 & echo $!; echo done", message)
    pid, word = ended.output.split()
    assert (ended.code, word) == (0, b"done")
    os.kill(int(pid), signal.SIGKILL)


def test_closed_output(message: int) -> None:
    """A program that closes its output first and ends later is waited for."""
    assert _run(b"exec >&- 2>&-; cat >/dev/null; exit 7", message) == Ended(7, b"")


def test_too_long(message: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that does not end in time is killed with all its process group, also those that do not listen."""
    monkeypatch.setattr(oversee, "GRACE_S", 0.1)
    deaf = b"trap '' TERM; %b while :; do sleep 1; done"
    (tmp_path / "child").write_bytes(deaf % b"echo $$ >pid;")
    with pytest.raises(Temporary, match="did not end"):
        _run(deaf % b"sh ./child &", message, limit_s=1.0)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not _runs(pid), "the process in the background has gone")


def test_too_long_while_writing(message: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless output is no reason to be let run."""
    monkeypatch.setattr(oversee, "GRACE_S", 0.1)
    with pytest.raises(Temporary, match="did not end"):
        _run(b"yes", message, limit_s=0.2)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_limit_beyond_all_time(message: int) -> None:
    """Any number will do as a limit."""
    assert _run(b"exit 3", message, limit_s=1e18) == Ended(3, b"")


def test_no_shell(message: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be started is a temporary failure."""
    monkeypatch.setattr(command, "SHELL", b"/nonexistent/sh")
    with pytest.raises(Temporary):
        _run(b"exit 0", message)
