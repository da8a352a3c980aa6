"""The queue's directories: making, sweeping, putting aside; the trigger."""

import os
import stat
import time
from pathlib import Path

import pytest

from qm.disk import queue
from qm.disk.trigger import Poker
from qm.errors import Temporary

NAME = b"1htpzqqd7xhat00k7p"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    queue.make()


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_queue_is_made_for_owner_and_group_only() -> None:
    """Nobody but the queue's owner and its group reads, lists or enters what is below queue/, whatever the umask."""
    for path in (queue.TMP, queue.NEW, queue.CUR, queue.STATE, queue.BAD):
        assert _mode(path) == 0o770
    assert _mode(queue.TRIGGER) == 0o660
    assert stat.S_ISFIFO(os.stat(queue.TRIGGER).st_mode)


def test_making_again_sets_modes_right_and_keeps_what_is_there() -> None:
    """make may run at every start."""
    Path(queue.NEW, NAME.decode()).write_bytes(b"x")
    os.chmod(queue.NEW, 0o700)
    queue.make()
    assert _mode(queue.NEW) == 0o770
    assert os.listdir(queue.NEW) == [NAME.decode()]


@pytest.mark.parametrize("path", [queue.TMP, queue.TRIGGER])
def test_something_else_in_a_place_of_ours_is_said(path: str) -> None:
    """A file where a directory or the FIFO belongs is a failure that names it, and is not touched."""
    if path == queue.TRIGGER:
        os.unlink(path)
    else:
        os.rmdir(path)
    Path(path).write_text("precious")
    with pytest.raises(Temporary, match=path):
        queue.make()
    assert Path(path).read_text() == "precious"


def test_a_link_in_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    """Modes are not changed through a symbolic link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    os.rmdir(queue.BAD)
    os.symlink(elsewhere, queue.BAD)
    with pytest.raises(Temporary, match=queue.BAD):
        queue.make()
    assert _mode(str(elsewhere)) == 0o700


def test_a_missing_queue_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without queue/ the failure names what is missing."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(Temporary, match="queue/tmp: No such file or directory"):
        queue.make()


def test_only_what_is_36_hours_old_is_swept() -> None:
    """A file that a writer may still have is kept; an older one goes; what is no file stays and does not stop
    the sweep.
    """
    now_s = time.time()
    for name, age_s in (("young", 36 * 3600 - 60), ("old", 36 * 3600 + 60)):
        path = Path(queue.TMP, name)
        path.write_bytes(b"x")
        os.utime(path, (now_s, now_s - age_s))
    Path(queue.TMP, "directory").mkdir()
    os.utime(Path(queue.TMP, "directory"), (0, 0))
    assert queue.sweep(now_s) == 1
    assert sorted(os.listdir(queue.TMP)) == ["directory", "young"]


def test_the_sweep_does_not_follow_links(tmp_path: Path) -> None:
    """What is judged and removed is the link, not what it points to."""
    old = tmp_path / "old"
    old.write_bytes(b"precious")
    os.utime(old, (0, 0))
    os.symlink(old, Path(queue.TMP, "link"))
    assert queue.sweep(time.time()) == 0
    assert queue.sweep(time.time() + queue.STALE_S + 10) == 1
    assert old.read_bytes() == b"precious"


def test_a_corrupt_file_is_put_aside_and_never_over_another() -> None:
    """bad/ keeps every file that came into it."""
    for count in range(3):
        Path(queue.CUR, NAME.decode()).write_bytes(b"%d" % count)
        queue.set_aside(queue.CUR, NAME)
    assert os.listdir(queue.CUR) == []
    kept = {path.name: path.read_bytes() for path in Path(queue.BAD).iterdir()}
    name = NAME.decode()
    assert kept == {name: b"0", f"{name}.1": b"1", f"{name}.2": b"2"}


def _reader() -> int:
    return os.open(queue.TRIGGER, os.O_RDWR | os.O_NONBLOCK)


def test_a_poke_tells_the_id() -> None:
    """The reader gets each ID and a line end."""
    reader = _reader()
    poker = Poker()
    poker.poke(NAME)
    poker.poke(NAME + b"b")
    assert os.read(reader, 100) == NAME + b"\n" + NAME + b"b\n"
    poker.close()
    os.close(reader)


def test_a_poke_waits_for_nobody() -> None:
    """Without a reader, without a trigger, and with a full one, poke comes back and raises nothing; the rest
    stays whole lines.
    """
    poker = Poker()
    poker.poke(NAME)
    reader = _reader()
    for _ in range(10000):
        poker.poke(NAME)
    data = os.read(reader, 1 << 20)
    assert data == (NAME + b"\n") * (len(data) // 19)
    assert len(data) > 32768
    os.close(reader)
    os.unlink(queue.TRIGGER)
    poker.poke(NAME)
    poker.close()


def test_a_poker_finds_a_new_trigger() -> None:
    """When send and its trigger have been replaced, the next poke reaches the new one."""
    reader = _reader()
    poker = Poker()
    poker.poke(NAME)
    os.close(reader)
    os.unlink(queue.TRIGGER)
    queue.make()
    reader = _reader()
    poker.poke(NAME)
    assert os.read(reader, 100) == NAME + b"\n"
    poker.close()
    os.close(reader)


def test_a_trigger_that_is_no_fifo_is_not_written() -> None:
    """A file in the trigger's place stays as it is."""
    os.unlink(queue.TRIGGER)
    Path(queue.TRIGGER).write_bytes(b"")
    Poker().poke(NAME)
    assert Path(queue.TRIGGER).read_bytes() == b""
