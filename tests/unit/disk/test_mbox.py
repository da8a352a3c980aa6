"""Appending to mbox files (qmail.md 13.7)."""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from qm.disk import mbox
from qm.disk.message import Message
from qm.errors import Temporary
from tests.harness.waiting import wait_for

FROM = b"From joe@b.example Tue Sep 21 12:26:40 2026\n"
HEAD = b"Return-Path: <joe@b.example>\nDelivered-To: c@d\n"
TEXT = b"Received: id 1htq\nSubject: x\n\nbody\n"
Deliver = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Mailbox"


@pytest.fixture
def deliver(path: Path, tmp_path: Path) -> Deliver:
    def deliver(text: bytes = TEXT, *, from_line: bytes = FROM, possible_duplicate: bool = False) -> None:
        (tmp_path / "message").write_bytes(text)
        fd = os.open(tmp_path / "message", os.O_RDONLY)
        try:
            mbox.deliver(mbox.Delivery(os.fsencode(path), from_line, HEAD, Message(fd), possible_duplicate))
        finally:
            os.close(fd)

    return deliver


def test_first_message(path: Path, deliver: Deliver) -> None:
    """The file is made for its user only; it has the From_ line, the two fields, the message, an empty line."""
    deliver()
    assert path.read_bytes() == FROM + HEAD + TEXT + b"\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_more_messages(path: Path, deliver: Deliver) -> None:
    """Messages follow one another; lines that look like From_ are quoted, and a last line gets its end."""
    deliver(b"\nFrom me\n>From you\nend")
    deliver(b"")
    assert path.read_bytes() == FROM + HEAD + b"\n>From me\n>>From you\nend\n\n" + FROM + HEAD + b"\n"


def test_a_file_that_was_replaced(path: Path, tmp_path: Path, deliver: Deliver) -> None:
    """Whoever waited for the lock of a file that is the mbox no more delivers to the one that is (maildir2mbox)."""
    path.write_bytes(b"gone\n\n")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pid = os.fork()
        if pid == 0:
            deliver()
            os._exit(0)
        waiting = f"-> FLOCK  ADVISORY  WRITE {pid} "
        wait_for(lambda: waiting in Path("/proc/locks").read_text(), "it waits for the lock")
        (tmp_path / "new").write_bytes(b"From x\n\n")
        (tmp_path / "new").rename(path)
        fcntl.flock(file, fcntl.LOCK_UN)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_bytes() == b"From x\n\n" + FROM + HEAD + TEXT + b"\n"


def test_large_message(path: Path, deliver: Deliver) -> None:
    """A message of many pieces is quoted where the pieces meet, too."""
    text = b"From x\n" * 100_000
    deliver(text)
    assert path.read_bytes() == FROM + HEAD + b">From x\n" * 100_000 + b"\n"


@pytest.mark.parametrize(
    ("end", "gap"), [(b"", b""), (b"x\n\n", b""), (b"x\n", b"\n"), (b"x", b"\n\n"), (b"\n", b"\n")]
)
def test_a_cut_message_before(path: Path, deliver: Deliver, end: bytes, gap: bytes) -> None:
    """After a message that another program has left unfinished, ours still begins as readers expect."""
    path.write_bytes(end)
    deliver()
    assert path.read_bytes() == end + gap + FROM + HEAD + TEXT + b"\n"


def test_kinds_of_file(path: Path, deliver: Deliver) -> None:
    """What is not a regular file is a mailbox in trouble, at once: a pipe, a device, a directory."""
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/null"), path.mkdir):
        make()
        with pytest.raises(Temporary) as caught:
            deliver()
        assert caught.value.status == "4.2.1"
        path.rmdir() if path.is_dir() else path.unlink()


def test_no_directory(path: Path, deliver: Deliver) -> None:
    """A file that cannot be opened is a mailbox in trouble, and no path is told to the sender."""
    path.symlink_to("gone/Mailbox")
    with pytest.raises(Temporary) as caught:
        deliver()
    assert caught.value.status == "4.2.1"
    assert "gone" not in caught.value.public


@pytest.mark.parametrize(("error", "status"), [(errno.EDQUOT, "4.2.2"), (errno.ENOSPC, "4.3.1"), (errno.EIO, "4.3.0")])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_failure_takes_off(
    path: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, call: str, error: int, status: str
) -> None:
    """A message that cannot be written whole is taken off again; the file's end stays what it was."""
    path.write_bytes(b"other\n\n")
    real = os.write

    def refuse(fd: int, data: bytes = b"") -> int:
        real(fd, data[:10])
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(Temporary) as caught:
        deliver()
    assert caught.value.status == status
    assert path.read_bytes() == b"other\n\n"


def test_without_locks(path: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no locks mail is still delivered, but nothing is taken off after a failure."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    deliver()
    monkeypatch.setattr(os, "fsync", no_locks)
    with pytest.raises(Temporary):
        deliver()
    assert path.read_bytes() == (FROM + HEAD + TEXT + b"\n") * 2


def test_lock_time(path: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's lock is waited for, but not for ever; no alarm and no handler is left behind."""
    monkeypatch.setattr(mbox, "LOCK_S", 0.05)
    handler = signal.getsignal(signal.SIGALRM)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Temporary, match="locked for"):
            deliver()
    assert path.read_bytes() == b""
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def _waiting_for_a_lock(pid: int) -> bool:
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1:3] == ["->", "FLOCK"] and str(pid) in line for line in lines)


def test_waits_for_the_lock(path: Path, deliver: Deliver) -> None:
    """A lock that is given up in time is taken, and what its holder has written stays before ours."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.write(writer, b"x")
            wait_for(lambda: _waiting_for_a_lock(os.getppid()), "the delivery waits for the lock")
            os.write(file.fileno(), b"theirs\n\n")
            os._exit(0)
    os.read(reader, 1)
    deliver()
    os.waitpid(pid, 0)
    assert path.read_bytes() == b"theirs\n\n" + FROM + HEAD + TEXT + b"\n"


LATER = b"From joe@b.example Tue Sep 21 12:36:40 2026\n"


def test_a_duplicate_is_seen(path: Path, deliver: Deliver) -> None:
    """A message that is in the file whole is not added if a repetition is possible; its date may differ."""
    deliver()
    deliver(b"Received: id 2\n\nanother\n")
    before = path.read_bytes()
    deliver(from_line=LATER, possible_duplicate=True)
    assert path.read_bytes() == before
    deliver(b"Received: id 3\n\nthird\n", possible_duplicate=True)
    assert path.read_bytes() == before + FROM + HEAD + b"Received: id 3\n\nthird\n\n"


def test_a_large_duplicate_is_seen(path: Path, deliver: Deliver) -> None:
    """So is one of many pieces, in a file of many pages."""
    path.write_bytes(b"x\n\n" * 10_000)
    deliver(TEXT + b"From x\n" * 100_000)
    before = path.read_bytes()
    deliver(TEXT + b"From x\n" * 100_000, from_line=LATER, possible_duplicate=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [100_000, 700_000 - 1])
def test_a_beginning_is_taken_off(path: Path, deliver: Deliver, size: int) -> None:
    """What a killed program has left of the message goes, if it is the file's end and the file is locked."""
    text = TEXT + b"body x\n" * 100_000
    deliver(b"Received: id 2\n\nanother\n")
    before = path.read_bytes()
    deliver(text)
    os.truncate(path, len(before) + size)
    deliver(text, from_line=LATER, possible_duplicate=True)
    assert path.read_bytes() == before + LATER + HEAD + text + b"\n"


def test_a_beginning_that_others_follow_stays(path: Path, deliver: Deliver) -> None:
    """Nothing is taken off that is not the file's end."""
    text = TEXT + b"body x\n" * 100_000
    deliver(text)
    os.truncate(path, 100_000)
    deliver(b"Received: id 2\n\nanother\n")
    before = path.read_bytes()
    deliver(text, possible_duplicate=True)
    assert path.read_bytes() == before + FROM + HEAD + text + b"\n"


def test_a_beginning_in_an_unlocked_file_stays(path: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything taken off a file that could not be locked: its end may be somebody's work in progress."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    text = TEXT + b"body x\n" * 100_000
    deliver(text)
    os.truncate(path, 100_000)
    before = path.read_bytes()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    deliver(text, possible_duplicate=True)
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().endswith(FROM + HEAD + text + b"\n")


def test_a_quotation_is_no_duplicate(path: Path, deliver: Deliver) -> None:
    """A message that quotes ours, word for word, does not make it a duplicate."""
    deliver(b"Received: id 2\n\nlook:\n" + FROM + HEAD + TEXT + b"\n")
    before = path.read_bytes()
    deliver(possible_duplicate=True)
    assert path.read_bytes() == before + FROM + HEAD + TEXT + b"\n"


def test_it_is_on_the_disk(path: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, and its directory when the file is new; a duplicate, too."""
    done = []
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(Path(os.readlink(f"/proc/self/fd/{fd}"))))
    deliver()
    assert done == [path, path.parent]
    done.clear()
    deliver(b"Received: id 2\n\nanother\n")
    deliver(possible_duplicate=True)
    assert done == [path, path]
