"""How send learns of new messages: the trigger's names, and a look into new/."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from qm.disk import queue
from qm.send.intake import BATCH, Intake
from qm.send.message import FOUND, FRESH
from qm.unix.loop import Loop
from qm.wire import queueid
from tests.harness.sending import make_home

MANY = 10 * BATCH


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_home()


def _new(count: int, first: int = 0) -> list[bytes]:
    names = [queueid.make(time.time_ns(), first + n) for n in range(count)]
    for name in names:
        Path(queue.NEW, name.decode()).touch()
    return names


def _poke(*lines: bytes) -> None:
    fd = os.open(queue.TRIGGER, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"".join(line + b"\n" for line in lines))
    os.close(fd)


class _Life:
    """An intake in a loop that stops when *count* have arrived."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.seen: list[tuple[bytes, int]] = []
        self.turns = 0
        self.most = 0  # in one turn
        self.intake = Intake(self.loop, lambda name, kind: self.seen.append((name, kind)))
        self.loop.before_wait.append(self._count)
        self._before = 0
        self._wanted = 0

    def _count(self) -> None:
        self.most = max(self.most, len(self.seen) - self._before)
        self._before = len(self.seen)
        if len(self.seen) >= self._wanted:
            self.loop.stop()

    def run(self, count: int) -> list[tuple[bytes, int]]:
        self._wanted = count
        self.loop.after(10.0, self.loop.stop)
        self.loop.run()
        return self.seen


def test_what_was_there_is_found() -> None:
    """At the start everything in new/ is taken, oldest first, a batch in each turn."""
    names = _new(MANY)
    life = _Life()
    assert life.run(MANY) == [(name, FOUND) for name in sorted(names)]
    assert life.most <= BATCH
    assert len(os.listdir(queue.CUR)) == MANY and not os.listdir(queue.NEW)


def test_a_flood_is_taken_in_turns() -> None:
    """Names that come by the trigger all at once hold up the loop for a batch each turn, and none is lost."""
    life = _Life()
    life.run(0)
    names = _new(MANY)
    _poke(*names)
    seen = life.run(MANY)
    assert {name for name, _ in seen} == set(names)
    assert len(seen) == MANY
    assert life.most <= 2 * BATCH  # the trigger's, and those of a look into new/ at the same time


@pytest.mark.parametrize("size", [65536, 4096])
def test_a_trigger_that_is_more_than_half_full(size: int) -> None:
    """Names may have found no room then, so new/ is read; a user who has many pipes gets small ones (pipe(7))."""
    life = _Life()
    life.run(0)
    fd = os.open(queue.TRIGGER, os.O_RDWR | os.O_NONBLOCK)
    assert fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size) == size
    os.close(fd)
    told, *untold = _new(5)
    _poke(*[told] * (size * 33 // 64 // (len(told) + 1)))
    assert {name for name, _ in life.run(5)} == {told, *untold}


def test_a_name_that_is_not_there() -> None:
    """A false name costs nothing; a true one in the same breath is taken, as new."""
    life = _Life()
    life.run(0)
    (name,) = _new(1)
    _poke(queueid.make(1, 1), b"\0", name)
    assert (name, FRESH) in life.run(1)


def test_a_poke_by_hand() -> None:
    """Anything that is no name makes send look into new/."""
    life = _Life()
    life.run(0)
    names = _new(3)
    _poke(b"look!")
    assert {name for name, _ in life.run(3)} == set(names)


def test_after_the_stop_nothing_is_taken() -> None:
    """What comes after SIGTERM, or was told and not taken yet, stays in new/."""
    life = _Life()
    life.run(0)
    names = _new(3 * BATCH)
    _poke(*names)
    life.run(1)
    life.intake.stop()
    before = len(life.seen)
    _poke(*_new(1, first=10_000))
    life.loop.after(0.05, life.loop.stop)
    life.run(MANY)
    assert len(life.seen) == before
    assert len(os.listdir(queue.NEW)) + before == 3 * BATCH + 1


def test_a_queue_that_cannot_be_changed_is_tried_in_peace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While no message can be moved (a disk that was remounted read-only), there is one look after another, with one
    alert each: what waits in new/ does not multiply them.
    """
    looks: list[float] = []
    listdir = os.listdir

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def look(path: bytes) -> list[bytes]:
        looks.append(time.monotonic())
        return listdir(path)

    _new(50)
    life = _Life()
    monkeypatch.setattr("qm.send.intake.RETRY_S", 0.01)
    monkeypatch.setattr("qm.send.intake.os.rename", refuse)
    monkeypatch.setattr("qm.send.intake.os.listdir", look)
    life.loop.before_wait.append(lambda: life.loop.stop() if len(looks) >= 5 else None)
    assert life.run(1) == []
    assert len(life.loop._timers) <= 3
    assert capfd.readouterr().err.count("alert:") <= len(looks)
