"""A Maildir delivery cut anywhere: after the next try the message is there once, and nothing is left unexplained."""

import errno
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.disk import maildir
from qm.disk.message import Message
from qm.errors import Temporary
from qm.wire import queueid
from tests.crash.faults import CALLS_MAX, Faults, kill_me, killed
from tests.harness.suite import BIN

TEXT = b"Subject: x\n\n" + b"body\n" * 60_000  # more than one piece
HEAD = b"Return-Path: <a@b>\n"
NAME = maildir.unique(queueid.make(1_790_000_000_000_000_000, 1), 0, 1)
CALLS = ("open", "write", "fsync", "close", "link", "unlink", "lstat", "scandir")
_LITTER = re.compile(r"[0-9]+\.Q[0-9a-z]+R0L1P([0-9]+)\.host")


class Cut(Exception):
    """The program ends here."""


def _cut(*_: object) -> None:
    raise Cut


class Box:
    """A Maildir and the one message that is delivered to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "Maildir"
        maildir.make(os.fsencode(self.path))
        (folder / "message").write_bytes(TEXT)
        self.message = Message(os.open(folder / "message", os.O_RDONLY))

    def deliver(self, *, possible_duplicate: bool = False) -> None:
        delivery = maildir.Delivery(os.fsencode(self.path), NAME, HEAD, self.message, b"host")
        maildir.deliver(delivery, possible_duplicate=possible_duplicate)

    def read(self) -> None:
        """What a mail reader does: it moves all that is new."""
        for path in list(self.path.glob("new/*")):
            path.rename(self.path / "cur" / f"{path.name}:2,")

    def check(self) -> None:
        """One message, whole; in tmp/ at most what a killed process has left."""
        assert [path.read_bytes() for path in self.path.glob("[nc][eu][wr]/*")] == [HEAD + TEXT]
        for path in self.path.glob("tmp/*"):
            match = _LITTER.fullmatch(path.name)
            assert match is not None, path.name
            assert int(match[1]) != os.getpid()

    def check_empty(self) -> None:
        assert not [path for path in self.path.rglob("*") if not path.is_dir()]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    os.close(box.message.fd)


@pytest.mark.parametrize("steps", range(len(maildir.STEPS) + 1))
def test_an_exception_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """An exception after any step leaves nothing, and the next try delivers."""
    with monkeypatch.context() as patch:
        patch.setattr(maildir, "STEPS", (*maildir.STEPS[:steps], _cut, *maildir.STEPS[steps:]))
        with pytest.raises(Cut):
            box.deliver()
    box.check_empty()
    box.deliver()
    box.check()


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("steps", range(len(maildir.STEPS) + 1))
def test_killed_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int, read: bool) -> None:
    """After a kill at any step the next try, told that it may be the second, delivers once, also if a reader came."""
    with monkeypatch.context() as patch:
        patch.setattr(maildir, "STEPS", (*maildir.STEPS[:steps], kill_me, *maildir.STEPS[steps:]))
        assert killed(box.deliver) == signal.SIGKILL
    if read:
        box.read()
    box.deliver(possible_duplicate=True)
    box.check()
    box.deliver(possible_duplicate=True)
    box.check()


@pytest.mark.parametrize("steps", range(len(maildir.STEPS) + 1))
def test_killed_and_not_known(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A worker alone is killed: the next try does not know, and still delivers once."""
    with monkeypatch.context() as patch:
        patch.setattr(maildir, "STEPS", (*maildir.STEPS[:steps], kill_me, *maildir.STEPS[steps:]))
        assert killed(box.deliver) == signal.SIGKILL
    box.deliver()
    box.check()


def test_killed_in_the_middle_of_a_write(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file never reaches new/."""
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, data[: len(data) // 2])
        kill_me()
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        assert killed(box.deliver) == signal.SIGKILL
    assert not list(box.path.glob("new/*"))
    box.deliver(possible_duplicate=True)
    box.check()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("possible_duplicate", [False, True])
def test_every_call_fails(tmp_path: Path, error: int, possible_duplicate: bool) -> None:
    """Whichever call fails: a temporary failure with nothing left, or a delivery; after the next try one message."""
    faults = Faults(CALLS, error)
    seen = set()
    for call in range(1, CALLS_MAX):
        (tmp_path / str(call)).mkdir()
        box = Box(tmp_path / str(call))
        failed = False
        with faults.at(call):
            try:
                box.deliver(possible_duplicate=possible_duplicate)
            except Temporary:
                failed = True
        if faults.failed is None:
            break
        seen.add(faults.failed)
        if failed:
            box.check_empty()
        else:
            assert faults.failed == "unlink", "only a left-over in tmp/ is no failure"
        box.deliver(possible_duplicate=True)
        assert len(list(box.path.glob("new/*"))) == 1
        os.close(box.message.fd)
    assert seen >= {"open", "write", "fsync", "close", "link", "unlink"}


def test_a_disk_that_refuses_everything(box: Box) -> None:
    """When nothing can be removed either, the failure is still a temporary one, and the next try delivers once."""
    real_unlink, real_fsync = os.unlink, os.fsync

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.unlink, os.fsync = refuse, refuse
    try:
        with pytest.raises(Temporary):
            box.deliver()
    finally:
        os.unlink, os.fsync = real_unlink, real_fsync
    box.deliver()
    assert [path.read_bytes() for path in box.path.glob("new/*")] == [HEAD + TEXT]
    assert not list(box.path.glob("tmp/*"))


@pytest.mark.parametrize("count", range(1, 12))
def test_make_cut_anywhere(tmp_path: Path, count: int) -> None:
    """A Maildir that is being made is whole or not there, and making it again works."""
    path = tmp_path / "Maildir"
    made = False
    with Faults(("mkdir", "open", "fsync", "close", "rename", "rmdir"), errno.EIO).at(count):
        try:
            maildir.make(os.fsencode(path))
            made = True
        except OSError:
            pass
    if path.exists():
        assert sorted(entry.name for entry in path.iterdir()) == ["cur", "new", "tmp"]
    else:
        assert not made
        maildir.make(os.fsencode(path))
    assert path.is_dir()


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("call", ["write:1", "fsync:1", "link:1", "unlink:1", "fsync:2", "write:2", "write:3"])
def test_the_real_command(box: Box, tmp_path: Path, call: str, fault: str) -> None:
    """qm-local itself, killed at any call that matters, or told that the disk is broken or full; then it runs again."""
    name, when = call.split(":")
    home = os.fspath(tmp_path)
    command = [str(BIN / "qm-local"), "joe", home, "joe", "", "", "x", "ann@b", "./Maildir/"]
    strace = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={when}"]
    env = {"PATH": "/usr/bin:/bin", "QMHOME": home, "QMID": "1hntvgghz6000000zz", "QMINDEX": "0"}
    codes = []
    for argv in ([*strace, *command], command):
        with (tmp_path / "message").open("rb") as message:
            done = subprocess.run(argv, stdin=message, env=env, capture_output=True, timeout=60, check=False)
        codes.append(done.returncode)
    harmless = call in ("unlink:1", "write:3") and fault != "signal=KILL"  # litter in tmp/; a report that nobody reads
    assert codes == [0 if harmless else -signal.SIGKILL if fault == "signal=KILL" else 111, 0]
    (text,) = (path.read_bytes() for path in box.path.glob("new/*"))
    assert text == b"Return-Path: <ann@b>\nDelivered-To: joe@x\n" + TEXT
    assert len(list(box.path.glob("tmp/*"))) <= (call == "unlink:1" or fault == "signal=KILL")
