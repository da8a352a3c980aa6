"""maildir2mbox cut anywhere: each message is in the Maildir or in the mbox, and so is all that was there before."""

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm import maildir2mbox
from qm.errors import Temporary
from qm.maildir2mbox import Transfer, transfer
from tests.crash.faults import CALLS_MAX, Faults, kill_me, killed

OLD = b"From old\n\nold\n\n"
TEXTS = [b"Subject: %d\n\n" % number + b"body\n" * (number * 60_000) for number in range(3)]
CALLS = ("open", "write", "fsync", "pread", "fstat", "unlink", "rename", "fchmod", "fchown")
TIMES = b" Tue Nov 24 05:00:36 2026\n"


class Cut(Exception):
    """The program ends here."""


def _cut(*_: object) -> None:
    raise Cut


class Box:
    """A Maildir of three messages, and an mbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mail, self.temporary = folder / "Mailbox", folder / "Mailbox.tmp"
        self.mail.write_bytes(OLD)
        for name in ("new", "cur", "tmp"):
            (folder / "Maildir" / name).mkdir(parents=True)
        for number, text in enumerate(TEXTS):
            path = folder / "Maildir" / (f"new/{number}.a" if number else "cur/0.a:2,S")
            path.write_bytes(text)
            os.utime(path, (1795496436, 1795496436))

    def move(self) -> None:
        os.chdir(self.folder / "Maildir")
        transfer(Transfer(os.fsencode(self.mail), os.fsencode(self.temporary)))

    def left(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / "Maildir").glob("*/*.a*"))]

    def check_nothing_is_lost(self) -> None:
        """The old mail is whole at the begin, then come whole messages; what is not among them is in the Maildir."""
        text = self.mail.read_bytes()
        assert text.startswith(OLD)
        moved = [b"From XXX" + TIMES + message + b"\n" for message in TEXTS]
        rest = text[len(OLD) :]
        assert rest in (b"", b"".join(moved))
        assert all(message in self.left() for message in TEXTS) or rest

    def check_all_is_moved(self) -> None:
        self.check_nothing_is_lost()
        assert self.left() == []
        assert self.mail.read_bytes() != OLD
        assert not self.temporary.exists()


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    here = Path.cwd()
    yield Box(tmp_path)
    os.chdir(here)


def test_the_new_mbox_is_locked_too(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever locks the mbox sees it before, or when the messages are no more in the Maildir as well."""
    seen: list[bool] = []
    look = lambda _: seen.append(_is_locked(box.mail))  # noqa: E731
    steps = [step for pair in zip(maildir2mbox.STEPS, [look] * len(maildir2mbox.STEPS), strict=True) for step in pair]
    monkeypatch.setattr(maildir2mbox, "STEPS", tuple(steps))
    box.move()
    assert seen == [True] * len(seen)
    assert not _is_locked(box.mail)


@pytest.mark.parametrize("steps", range(len(maildir2mbox.STEPS) + 1))
def test_an_exception_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """An exception after any step loses nothing and leaves no file; the next run moves what is left."""
    with monkeypatch.context() as patch:
        patch.setattr(maildir2mbox, "STEPS", (*maildir2mbox.STEPS[:steps], _cut, *maildir2mbox.STEPS[steps:]))
        with pytest.raises(Cut):
            box.move()
    box.check_nothing_is_lost()
    assert not box.temporary.exists()


@pytest.mark.parametrize("steps", range(len(maildir2mbox.STEPS) + 1))
def test_killed_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """After a kill at any step nothing is lost, and the next run moves all."""
    with monkeypatch.context() as patch:
        patch.setattr(maildir2mbox, "STEPS", (*maildir2mbox.STEPS[:steps], kill_me, *maildir2mbox.STEPS[steps:]))
        assert killed(box.move) == signal.SIGKILL
    box.check_nothing_is_lost()
    if box.mail.read_bytes() == OLD:
        box.move()
        box.check_all_is_moved()


def test_killed_in_the_middle_of_a_write(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before the kill is in no mailbox."""
    real = os.write

    def some(fd: int, data: bytes) -> int:
        real(fd, data[:1000])
        kill_me()
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", some)
        assert killed(box.move) == signal.SIGKILL
    assert box.mail.read_bytes() == OLD
    box.move()
    box.check_all_is_moved()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_every_call_fails(tmp_path: Path, error: int) -> None:
    """Whichever call fails, once: nothing is lost, no file is left; the next run moves what is left."""
    here = Path.cwd()
    seen = set()
    for call in range(1, CALLS_MAX):
        (tmp_path / str(call)).mkdir()
        box = Box(tmp_path / str(call))
        faults = Faults(CALLS, error)
        with faults.at(call):
            try:
                box.move()
            except Temporary:
                pass
        box.check_nothing_is_lost()
        if faults.failed is None:
            box.check_all_is_moved()
            break
        seen.add(faults.failed)
    os.chdir(here)
    assert seen >= {"open", "write", "fsync", "pread", "fstat", "unlink", "rename"}


def test_a_message_that_its_reader_takes_meanwhile(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is renamed is found, what is removed is left out."""

    def take(*_: object) -> None:
        (box.folder / "Maildir/new/1.a").rename(box.folder / "Maildir/cur/1.a:2,S")
        (box.folder / "Maildir/new/2.a").unlink()

    monkeypatch.setattr(maildir2mbox, "STEPS", (maildir2mbox.STEPS[0], take, *maildir2mbox.STEPS[1:]))
    box.move()
    assert box.left() == []
    assert box.mail.read_bytes().count(b"From XXX") == 2
