"""run/status: what rc reads, and what a killed supervisor leaves."""

import os
import signal
from pathlib import Path

import pytest

from qm.supervise import status
from qm.supervise.status import Row


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)


def _child() -> int:
    """A process in a group of its own that waits for a signal."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.write(writer, b"1")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid


def test_rows_come_back() -> None:
    """What is written is read, in this boot."""
    rows = [Row("smtp", 12, 34, 56, "up", "2525"), Row("pop3", 0, 0, 78, "down", "")]
    status.write(rows)
    assert status.read() == rows


@pytest.mark.parametrize("text", ["", "another boot\nsmtp\t1\t1\t1\tup\t\n", "nonsense\nx\n", "\n\n"])
def test_another_file_has_no_rows(text: str) -> None:
    """A file of another boot, or of nobody, has no rows."""
    Path(status.PATH).write_text(text)
    assert status.read() == []


def test_leftovers_are_ended() -> None:
    """A service of a supervisor that was killed is ended, and waited for."""
    pid = _child()
    status.write([Row("smtp", pid, status.start_ticks(pid), 0, "up", "")])
    assert status.end_leftovers() == ["smtp"]
    assert os.waitpid(pid, os.WNOHANG)[1] == signal.SIGTERM


def test_a_stranger_is_left_alone() -> None:
    """A process that has the pid but started at another time is a stranger."""
    pid = _child()
    try:
        status.write([Row("smtp", pid, status.start_ticks(pid) + 1, 0, "up", "")])
        assert status.end_leftovers() == []
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
