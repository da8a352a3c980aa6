"""An mbox delivery cut anywhere: after the next try the message is there once, and so is what was there before."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.disk import mbox
from qm.disk.message import Message
from qm.errors import Temporary
from tests.crash.faults import CALLS_MAX, Faults, kill_me, killed

FROM = b"From joe@b.example Tue Sep 21 12:26:40 2026\n"
LATER = b"From joe@b.example Tue Sep 21 12:36:40 2026\n"
HEAD = b"Return-Path: <joe@b.example>\nDelivered-To: c@d\n"
TEXT = b"Received: id 1htq\nSubject: x\n\n" + b"body\n" * 60_000
OTHER = b"From x\n\nother\n\n"
CALLS = ("open", "write", "fsync", "lseek", "pread", "fstat", "ftruncate")


class Cut(Exception):
    """The program ends here."""


def _cut(*_: object) -> None:
    raise Cut


class Box:
    """An mbox with a message of somebody, and the one that is delivered to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "Mailbox"
        self.path.write_bytes(OTHER)
        (folder / "message").write_bytes(TEXT)
        self.message = Message(os.open(folder / "message", os.O_RDONLY))

    def deliver(self, from_line: bytes = FROM, *, possible_duplicate: bool = False) -> None:
        mbox.deliver(mbox.Delivery(os.fsencode(self.path), from_line, HEAD, self.message, possible_duplicate))

    def check(self) -> None:
        text = self.path.read_bytes()
        assert text in (OTHER + FROM + HEAD + TEXT + b"\n", OTHER + LATER + HEAD + TEXT + b"\n")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    os.close(box.message.fd)


@pytest.mark.parametrize("steps", range(len(mbox.STEPS) + 1))
def test_an_exception_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """An exception after any step leaves the file as it was, and the next try delivers."""
    with monkeypatch.context() as patch:
        patch.setattr(mbox, "STEPS", (*mbox.STEPS[:steps], _cut, *mbox.STEPS[steps:]))
        with pytest.raises(Cut):
            box.deliver()
    assert box.path.read_bytes() == OTHER
    box.deliver(LATER)
    box.check()


@pytest.mark.parametrize("steps", range(len(mbox.STEPS) + 1))
def test_killed_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """After a kill at any step the next try, told that it may be the second, leaves one message."""
    with monkeypatch.context() as patch:
        patch.setattr(mbox, "STEPS", (*mbox.STEPS[:steps], kill_me, *mbox.STEPS[steps:]))
        assert killed(box.deliver) == signal.SIGKILL
    box.deliver(LATER, possible_duplicate=True)
    box.check()


@pytest.mark.parametrize("size", [3000, 65536, 200_000, 262_144])
def test_killed_in_the_middle_of_a_write(box: Box, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """What was written of the message before the kill is taken off by the next try."""
    real = os.write

    def some(fd: int, data: bytes) -> int:
        real(fd, data[:size])
        kill_me()
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", some)
        assert killed(box.deliver) == signal.SIGKILL
    assert box.path.stat().st_size > len(OTHER)
    box.deliver(LATER, possible_duplicate=True)
    box.check()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("possible_duplicate", [False, True])
def test_every_call_fails(tmp_path: Path, error: int, possible_duplicate: bool) -> None:
    """Whichever call fails, once: a temporary failure, and the file is as it was; the next try delivers."""
    seen = set()
    for call in range(1, CALLS_MAX):
        (tmp_path / str(call)).mkdir()
        box = Box(tmp_path / str(call))
        faults = Faults(CALLS, error)
        with faults.at(call):
            try:
                box.deliver(possible_duplicate=possible_duplicate)
            except Temporary:
                assert box.path.read_bytes() == OTHER
        if faults.failed is None:
            box.check()
            break
        seen.add(faults.failed)
        box.deliver(LATER, possible_duplicate=True)
        box.check()
        os.close(box.message.fd)
    assert seen >= {"open", "write", "fsync", "lseek", "fstat"}
