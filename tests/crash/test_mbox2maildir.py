"""mbox2maildir cut anywhere: what is in new/ or cur/ is whole, the mbox untouched, and the next run does the rest."""

import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm import mbox2maildir
from tests.crash.faults import Faults, kill_me, killed
from tests.harness.queueservice import PYTHON
from tests.harness.suite import BIN

TEXTS = [
    b"Subject: 0\n\nbody\n",
    b"Status: RO\nX-Status: F\n\n" + b">From us\n\nFrom them\n" * 14_000,
    b"Subject: 2\n\nno end",
]
MBOX = (
    b"From a@b Tue Nov 24 05:00:36 2026\n" + TEXTS[0] + b"\n"
    b"From a@b Tue Nov 24 05:00:37 2026\n" + TEXTS[1].replace(b"From ", b">From ") + b"\n"
    b"From x\n" + TEXTS[2]
)  # fmt: skip
CALLS = ("open", "write", "fsync", "unlink", "link", "utime", "listdir", "close")
CALLS_MAX = 200


class Box:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mbox = folder / "mbox"
        self.mbox.write_bytes(MBOX)
        for name in ("new", "cur", "tmp"):
            (folder / "Maildir" / name).mkdir(parents=True)

    def copy(self) -> None:
        os.chdir(self.folder / "Maildir")
        with self.mbox.open("rb") as file:
            mbox2maildir.copy_all(file)

    def there(self) -> list[bytes]:
        return [path.read_bytes() for path in (*self.folder.glob("Maildir/new/*"), *self.folder.glob("Maildir/cur/*"))]

    def check(self) -> None:
        assert self.mbox.read_bytes() == MBOX
        assert len(set(self.there())) == len(self.there())
        assert set(self.there()) <= set(TEXTS)

    def finish(self) -> None:
        self.copy()
        self.check()
        assert sorted(self.there()) == sorted(TEXTS)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    here = Path.cwd()
    yield Box(tmp_path)
    os.chdir(here)


@pytest.mark.parametrize("steps", range(len(mbox2maildir.STEPS) + 1))
def test_killed_after_any_step(box: Box, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """After a kill at any step of a message nothing is lost or in parts, and the next run copies the rest."""
    with monkeypatch.context() as patch:
        patch.setattr(mbox2maildir, "STEPS", (*mbox2maildir.STEPS[:steps], kill_me, *mbox2maildir.STEPS[steps:]))
        assert killed(box.copy) == signal.SIGKILL
    box.check()
    box.finish()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_every_call_fails(tmp_path: Path, error: int) -> None:
    """Whichever call fails, once: no part of a message is seen, and the next run copies the rest."""
    here, seen = Path.cwd(), set()
    for call in range(1, CALLS_MAX):
        (tmp_path / str(call)).mkdir()
        box = Box(tmp_path / str(call))
        faults = Faults(CALLS, error)
        with faults.at(call):
            try:
                box.copy()
            except OSError:
                pass
        box.check()
        box.finish()
        if faults.failed is None:
            break
        seen.add(faults.failed)
    os.chdir(here)
    assert seen >= {"open", "write", "fsync", "unlink", "link", "utime", "listdir", "close"}


def run(box: Box, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PYTHON, BIN / words[0], *words[1:]], cwd=box.folder, capture_output=True, timeout=60, check=False,
        env={"MAIL": f"{box.folder}/back", "MAILTMP": f"{box.folder}/back.tmp", "MAILDIR": f"{box.folder}/Maildir"},
    )  # fmt: skip


def test_the_program(box: Box) -> None:
    """Flags and times come over; twice is once; and maildir2mbox makes the same messages of it."""
    for _ in range(2):
        done = run(box, "mbox2maildir", "mbox", "Maildir")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    box.check()
    (seen,) = (box.folder / "Maildir/cur").iterdir()
    assert (seen.read_bytes(), seen.name.partition(":")[2]) == (TEXTS[1], "2,FS")
    assert int(seen.stat().st_mtime) == 1795496437
    assert list((box.folder / "Maildir/tmp").iterdir()) == []
    assert run(box, "maildir2mbox").returncode == 0
    back = (box.folder / "back").read_bytes()
    for text in TEXTS:
        assert b"\n" + text.replace(b"From ", b">From ") + b"\n" in back


def test_usage(box: Box) -> None:
    """No mbox, no Maildir and no words are refused; a locked mbox is waited for."""
    assert run(box, "mbox2maildir").returncode == 100
    assert run(box, "mbox2maildir", "none", "Maildir").returncode == 111
    assert run(box, "mbox2maildir", "mbox", "none").returncode == 111
    assert run(box, "mbox2maildir", "Maildir", "Maildir").returncode == 111
    (box.folder / "text").write_text("no mbox\n")
    assert run(box, "mbox2maildir", "text", "Maildir").returncode == 100
    with box.mbox.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        argv = [*PYTHON, BIN / "mbox2maildir", "mbox", "Maildir"]
        with subprocess.Popen(argv, cwd=box.folder, env={}) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            assert box.there() == []
            fcntl.flock(file, fcntl.LOCK_UN)
            assert waiting.wait(60) == 0
    box.check()
