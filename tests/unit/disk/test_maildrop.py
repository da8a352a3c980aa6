"""A Maildir as POP3 sees it, with other programs at work in it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qm.disk import maildrop
from qm.disk.maildrop import QUIT_STEPS, Gone, InUse, Maildrop
from qm.errors import Temporary

HOUR_S = 3600


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Maildir, as the current directory."""
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _put(path: str, text: bytes = b"Subject: x\n\nbody\n") -> None:
    Path(path).write_bytes(text)


def _read(drop: Maildrop, number: int) -> bytes:
    fd, size = drop.open(number)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _uidls(drop: Maildrop) -> list[bytes]:
    return [drop.uidl(number) for number in drop.numbers()]


def _quit(drop: Maildrop) -> None:
    for step in QUIT_STEPS:
        step(drop)


def _everything() -> list[str]:
    return sorted(f"{d}/{name}" for d in ("new", "cur") for name in os.listdir(d))


def test_numbers_follow_the_age(box: Path) -> None:
    """Messages are numbered by the time in their names, in new/ and cur/ alike; without one, by the file's."""
    _put("cur/1700000003.c.h:2,S")
    _put("new/1700000001.a.h")
    _put("cur/999999999.z.h:2,")
    _put("new/strange")
    os.utime("new/strange", (1700000002, 1700000002))
    assert _uidls(Maildrop()) == [b"999999999.z.h", b"1700000001.a.h", b"strange", b"1700000003.c.h"]


def test_only_regular_files_are_messages(box: Path) -> None:
    """Links, FIFOs, directories and hidden files in a Maildir are not messages, and nothing waits for them."""
    _put("secret", b"not yours\n")
    os.symlink("../secret", "new/1.link.h")
    os.symlink("nowhere", "cur/2.dangling.h:2,")
    os.mkfifo("new/3.fifo.h")
    os.mkdir("cur/4.directory.h:2,")
    _put("new/.hidden")
    _put("new/5.real.h")
    assert _uidls(Maildrop()) == [b"5.real.h"]


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir, lambda path: os.symlink("../secret", path)])
def test_what_takes_a_messages_place_is_not_followed(box: Path, plant) -> None:  # type: ignore[no-untyped-def]
    """A message whose file has become something else during the session is gone."""
    _put("secret")
    _put("new/1.a.h")
    drop = Maildrop()
    os.unlink("new/1.a.h")
    plant("new/1.a.h")
    with pytest.raises(Gone):
        drop.open(1)


def test_a_message_that_moves_is_found(box: Path) -> None:
    """Another program moves a message to cur/ and changes its flags, twice: it keeps its number."""
    _put("new/1.a.h", b"hello\n")
    drop = Maildrop()
    os.rename("new/1.a.h", "cur/1.a.h:2,S")
    assert _read(drop, 1) == b"hello\n"
    os.rename("cur/1.a.h:2,S", "cur/1.a.h:2,FS")
    assert _read(drop, 1) == b"hello\n"
    drop.delete(1)
    os.rename("cur/1.a.h:2,FS", "cur/1.a.h:2,")
    _quit(drop)
    assert (drop.removed, drop.failed, _everything()) == (1, [], [])


def test_a_message_that_has_gone(box: Path) -> None:
    """A message that another program has removed is gone, its neighbours are not, and to delete it is no failure."""
    _put("new/1.a.h")
    _put("new/2.b.h", b"still here\n")
    drop = Maildrop()
    os.unlink("new/1.a.h")
    with pytest.raises(Gone):
        drop.open(1)
    assert drop.size(1) == 0
    assert _read(drop, 2) == b"still here\n"
    drop.delete(1)
    _quit(drop)
    assert (drop.removed, drop.failed) == (0, [])


def test_a_mailbox_that_is_emptied_meanwhile(box: Path) -> None:
    """A thousand messages that are gone cost one look at the directories, not a thousand."""
    for n in range(1000):
        _put(f"new/{n + 1}.a.h", b"")
    drop = Maildrop()
    for n in range(1000):
        os.unlink(f"new/{n + 1}.a.h")
        drop.delete(n + 1)
    looks: list[bytes] = []
    listing = maildrop._listing
    maildrop._listing = lambda directory: looks.append(directory) or listing(directory)  # type: ignore[func-returns-value]
    try:
        _quit(drop)
    finally:
        maildrop._listing = listing
    assert (drop.failed, len(looks)) == ([], 2)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"", 0),
        (b"a\n", 3),
        (b"a\r\nb\n", 6),
        (b"a", 1),
        (b".\n..\n", 7),
        (b"x" * maildrop.CHUNK + b"\r\n\n", maildrop.CHUNK + 4),
    ],
)
def test_sizes(box: Path, text: bytes, size: int) -> None:
    """Without ,W= in its name a message is counted: two octets for each line end."""
    _put("new/1.a.h,S=1", text)
    assert Maildrop().size(1) == size


def test_sizes_are_told_by_names(box: Path) -> None:
    """A mailbox is opened, counted and listed without a look at any file whose name tells all."""
    for n in range(50):
        _put(f"cur/{n + 1}.Qx{n}R0L0.h,S=10,W={n + 100}:2,S")
    os.chmod("cur", 0o700)
    program = (
        "import os, sys\n"
        "from qm.disk.maildrop import Maildrop\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append(args[0]) if event == 'open' else None)\n"
        "drop = Maildrop()\n"
        "total = sum(map(drop.size, drop.numbers())), [drop.uidl(n) for n in drop.numbers()]\n"
        "assert not seen, seen\n"
        "print(total[0])\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=box, env={"PYTHONPATH": str(root)}, capture_output=True, check=True
    )
    assert int(done.stdout) == sum(range(100, 150))


def test_uidls_do_not_depend_on_flags_or_place(box: Path) -> None:
    """The unique-id is the same before and after a session, and whatever flags another program sets."""
    _put("new/1700000000.Q0123456789abcdefghR0L1.h,S=17,W=20")
    _put("new/1700000001.2.h")
    first = _uidls(drop := Maildrop())
    _quit(drop)
    assert all(name.startswith("cur/") for name in _everything())
    assert _uidls(Maildrop()) == first
    os.rename("cur/1700000001.2.h:2,", "cur/1700000001.2.h:2,FRS")
    assert _uidls(Maildrop()) == first


def test_quit(box: Path) -> None:
    """QUIT removes what is marked, and moves what is left in new/ to cur/ with empty flags."""
    for path in ("new/1.a.h", "new/2.b.h", "cur/3.c.h:2,S", "cur/4.d.h:2,F", "new/5.e.h:2,S"):
        _put(path)
    drop = Maildrop()
    drop.delete(1)
    drop.delete(3)
    _quit(drop)
    assert _everything() == ["cur/2.b.h:2,", "cur/4.d.h:2,F", "cur/5.e.h:2,S"]
    assert (drop.removed, drop.failed) == (2, [])


@pytest.mark.parametrize("steps", range(len(QUIT_STEPS) + 1))
def test_a_crash_between_any_two_steps(box: Path, steps: int) -> None:
    """Cut anywhere, each message that was not marked is there exactly once, and the next QUIT ends what was begun."""
    for path in ("new/1.a.h", "new/2.b.h", "cur/3.c.h:2,S"):
        _put(path)
    drop = Maildrop()
    drop.delete(1)
    for step in QUIT_STEPS[:steps]:
        step(drop)
    after = Maildrop()
    assert [uidl for uidl in _uidls(after) if uidl != b"1.a.h"] == [b"2.b.h", b"3.c.h"]
    if b"1.a.h" in _uidls(after):
        after.delete(1)
    _quit(after)
    assert _everything() == ["cur/2.b.h:2,", "cur/3.c.h:2,S"]


def test_what_was_removed_is_synced_before_the_answer(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directories are synced when something was removed, cur/ first; when nothing was, nothing is."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    _put("new/1.a.h")
    _put("new/2.b.h")
    _quit(Maildrop())
    assert synced == []
    _put("new/3.c.h")
    drop = Maildrop()
    drop.delete(1)
    _quit(drop)
    assert synced == ["cur", "new"]


def test_a_failed_fsync_is_told(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the directory cannot be synced, QUIT fails."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    _put("new/1.a.h")
    drop = Maildrop()
    drop.delete(1)
    with pytest.raises(OSError, match="Input/output"):
        _quit(drop)


def test_a_failed_unlink_is_told(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that cannot be removed is a failure, and the others are removed all the same."""
    for path in ("new/1.a.h", "new/2.b.h", "new/3.c.h"):
        _put(path)
    drop = Maildrop()
    for number in drop.numbers():
        drop.delete(number)
    unlink = os.unlink

    def fail(path: bytes) -> None:
        if b"2.b" in path:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path)

    monkeypatch.setattr(os, "unlink", fail)
    _quit(drop)
    assert drop.removed == 2
    assert drop.failed == ["new/2.b.h: Permission denied"]


def test_a_message_in_both_directories(box: Path) -> None:
    """What a crash in a rename may leave, one message in new/ and cur/, is one message, and goes as one."""
    _put("new/1.a.h")
    os.link("new/1.a.h", "cur/1.a.h:2,")
    drop = Maildrop()
    assert len(drop) == 1
    drop.delete(1)
    _quit(drop)
    assert _everything() == []


def test_marks(box: Path) -> None:
    """A marked message is no message, until the marks are taken away."""
    for path in ("new/1.a.h", "new/2.b.h"):
        _put(path)
    drop = Maildrop()
    drop.delete(2)
    assert (drop.numbers(), 1 in drop, 2 in drop, 0 in drop, 3 in drop, 10**40 in drop) == (
        [1],
        True,
        False,
        False,
        False,
        False,
    )
    drop.undelete_all()
    assert drop.numbers() == [1, 2]


def test_one_session_at_a_time(box: Path) -> None:
    """The second session is told that the mailbox is in use; after the first it may have it."""
    first = maildrop.lock()
    with pytest.raises(InUse):
        maildrop.lock()
    os.close(first)
    os.close(maildrop.lock())


def test_the_lock_is_nobodys_door(box: Path) -> None:
    """A link in the lock's place is not followed, and the lock is for its owner only."""
    os.symlink("/tmp/not-made-by-us", maildrop.LOCK)
    with pytest.raises(Temporary):
        maildrop.lock()
    os.unlink(maildrop.LOCK)
    os.close(maildrop.lock())
    assert os.stat(maildrop.LOCK).st_mode & 0o777 == 0o600


def test_a_fifo_in_the_locks_place(box: Path) -> None:
    """Nothing waits for a FIFO that stands where the lock belongs."""
    os.mkfifo(maildrop.LOCK)
    os.close(maildrop.lock())


def test_a_full_disk_does_not_lock_anybody_out(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lock file can be made the directory is locked, so that its owner can remove mail."""
    open_ = os.open

    def full(path: bytes, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_(path, flags, mode)

    monkeypatch.setattr(os, "open", full)
    fd = maildrop.lock()
    with pytest.raises(InUse):
        maildrop.lock()
    os.close(fd)


def test_sweep(box: Path) -> None:
    """Files of tmp/ go when they are older than 36 hours, regular ones only."""
    now_s = 1_800_000_000
    for name, age_hours in (("old", 37), ("young", 35)):
        _put(f"tmp/{name}")
        os.utime(f"tmp/{name}", (now_s - age_hours * HOUR_S,) * 2)
    os.mkdir("tmp/directory")
    os.symlink("old", "tmp/link")
    maildrop.sweep(now_s)
    assert sorted(os.listdir("tmp")) == ["directory", "link", "young"]
