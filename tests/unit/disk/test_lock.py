"""One at a time."""

import os
import signal
from pathlib import Path

import pytest

from qm.disk import lock
from qm.errors import Temporary


def test_take(tmp_path: Path) -> None:
    """A lock that is taken cannot be taken again, until its holder ends."""
    path = str(tmp_path / "lock")
    fd = lock.take(path)
    with pytest.raises(Temporary, match="already running"):
        lock.take(path)
    os.close(fd)
    os.close(lock.take(path))


def test_held(tmp_path: Path) -> None:
    """A lock is held inside the block, and free after it, however it is left."""
    path = str(tmp_path / "lock")
    with pytest.raises(ValueError), lock.held(path):
        with pytest.raises(Temporary):
            lock.take(path)
        raise ValueError
    os.close(lock.take(path))


def test_waiting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a lock that is not given up gets a temporary failure, and its SIGALRM is as before."""
    monkeypatch.setattr(lock, "WAIT_S", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    fd = lock.take(str(tmp_path / "lock"))
    with pytest.raises(Temporary, match="another process has held it"), lock.held(str(tmp_path / "lock")):
        raise AssertionError("not ours")
    os.close(fd)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_directory(tmp_path: Path) -> None:
    """A lock that cannot be made is a temporary failure that names it."""
    with pytest.raises(Temporary, match="none/lock"):
        lock.take(str(tmp_path / "none" / "lock"))


@pytest.mark.needs_root
def test_root_gives_away_only_what_it_has_made(tmp_path: Path) -> None:
    """A link that a system's owner has put in the lock's place does not get him the file behind it."""
    os.chown(tmp_path, 12345, 23456)
    (tmp_path / "roots").touch()
    os.link(tmp_path / "roots", tmp_path / "lock")
    os.close(lock.take(str(tmp_path / "lock")))
    assert (tmp_path / "roots").stat().st_uid == 0
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to("roots")
    with pytest.raises(Temporary):
        lock.take(str(tmp_path / "lock"))


@pytest.mark.needs_root
def test_the_owner_can_take_it_after_root(tmp_path: Path) -> None:
    """A lock that root has made in a private system belongs to the system's owner."""
    os.chown(tmp_path, 12345, 23456)
    os.close(lock.take(str(tmp_path / "lock")))
    assert (tmp_path / "lock").stat().st_uid == 12345
