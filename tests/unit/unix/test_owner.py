"""The lock by which a running supervisor is found."""

import os
import signal
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.unix import owner


def _holder(path: str) -> int:
    """A process that holds *path* until it is killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        owner.take(path)
        os.write(writer, b"1")
        signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid


def test_the_holder_is_found_while_it_lives(tmp_path: Path) -> None:
    """find gives the process that holds the lock; once it has ended, nobody, whatever the file says."""
    path = str(tmp_path / "lock")
    assert owner.find(path) is None
    pid = _holder(path)
    found = owner.find(path)
    assert found is not None
    assert (found.pid, found.wait(0)) == (pid, False)
    found.signal(signal.SIGKILL)
    assert found.wait(10)
    os.waitpid(pid, 0)
    assert owner.find(path) is None
    assert Path(path).read_text() == f"{pid}\n"


def test_only_one_holds_it(tmp_path: Path) -> None:
    """A second one is refused, temporarily."""
    path = str(tmp_path / "lock")
    pid = _holder(path)
    try:
        with pytest.raises(Temporary, match="already running"):
            owner.take(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_forked_child_does_not_hold_it(tmp_path: Path) -> None:
    """The lock ends with the process that took it, though a child of it lives."""
    path = str(tmp_path / "lock")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        owner.take(path)
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(writer, b"%d" % child)
        os._exit(0)
    child = int(os.read(reader, 20))
    os.waitpid(pid, 0)
    try:
        assert owner.find(path) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)
