"""Delivering to Maildirs and making them (DESIGN.md section 5)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from qm.disk import maildir
from qm.disk.message import Message
from qm.errors import Temporary
from qm.wire import queueid
from qm.wire.multiline import WireSize

ID = queueid.make(1_790_000_000_123_456_789, 4711)
NAME = maildir.unique(ID, 3, 2)
HEAD = b"Return-Path: <a@b>\nDelivered-To: c@d\n"
TEXT = b"Subject: x\n\nbody\r\nlast\n"
Deliver = Callable[..., None]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.make(os.fsencode(tmp_path / "Maildir"))
    return tmp_path / "Maildir"


@pytest.fixture
def deliver(box: Path, tmp_path: Path) -> Deliver:
    def deliver(text: bytes = TEXT, *, name: bytes = NAME, possible_duplicate: bool = False) -> None:
        (tmp_path / "message").write_bytes(text)
        fd = os.open(tmp_path / "message", os.O_RDONLY)
        try:
            delivery = maildir.Delivery(os.fsencode(box) + b"/", name, HEAD, Message(fd), b"host.example")
            maildir.deliver(delivery, possible_duplicate=possible_duplicate)
        finally:
            os.close(fd)

    return deliver


def _files(box: Path) -> list[str]:
    return sorted(str(path.relative_to(box)) for path in box.rglob("*") if not path.is_dir())


def test_name_and_content(box: Path, deliver: Deliver) -> None:
    """The file is in new/, named for birth, message, recipient and line, with both sizes; only its user can read it."""
    deliver()
    size = len(HEAD + TEXT)
    (name,) = _files(box)
    assert name == f"new/1790000000.Q{ID.decode()}R3L2.host.example,S={size},W={size + 5}"
    assert (box / name).read_bytes() == HEAD + TEXT
    assert stat.S_IMODE((box / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", [b"", b"\n", b"no end", b"a\r\n" * 30_000, b"x" * 65535 + b"\r\n\n", b"a\n" * 400_000])
def test_sizes(box: Path, deliver: Deliver, text: bytes) -> None:
    """S is the file's size and W what a POP3 server counts, wherever the message is cut into pieces."""
    deliver(text)
    (name,) = _files(box)
    wire = WireSize()
    wire.feed(HEAD + text)
    assert name.endswith(f",S={len(HEAD + text)},W={wire.total}")
    assert (box / name).read_bytes() == HEAD + text


def test_repetition_is_one_message(box: Path, deliver: Deliver) -> None:
    """The same delivery once more, as after a crash before the report, changes nothing."""
    deliver()
    before = _files(box)
    deliver()
    assert _files(box) == before


@pytest.mark.parametrize("moved", ["{}", "{}:2,S", "{}:2,"])
def test_possible_duplicate_is_found_in_cur(box: Path, deliver: Deliver, moved: str) -> None:
    """A message that a reader has moved to cur/ is not delivered again if a repetition is possible."""
    deliver()
    (name,) = _files(box)
    (box / name).rename(box / "cur" / moved.format(Path(name).name))
    before = _files(box)
    deliver(possible_duplicate=True)
    assert _files(box) == before


def test_possible_duplicate_of_none(box: Path, deliver: Deliver) -> None:
    """A possible duplicate that is none is delivered: another recipient's, line's and message's files do not count."""
    for name in (maildir.unique(ID, 3, 21), maildir.unique(ID, 31, 2), maildir.unique(ID + b"b", 3, 2)):
        deliver(name=name)
    deliver(possible_duplicate=True)
    assert len(_files(box)) == 4


def test_possible_duplicate_without_cur(box: Path, deliver: Deliver) -> None:
    """A Maildir that its user has bereft of cur/ takes mail at every try."""
    (box / "cur").rmdir()
    for possible_duplicate in (False, True):
        deliver(possible_duplicate=possible_duplicate)
        assert len(_files(box)) == 1


def test_a_stranger_with_our_name(box: Path, deliver: Deliver) -> None:
    """A file of our name that is not our message is not taken for a delivery."""
    deliver()
    (name,) = _files(box)
    (box / name).write_bytes(b"something else")
    with pytest.raises(Temporary):
        deliver()
    assert _files(box) == [name]


@pytest.mark.parametrize("directory", ["new", "tmp"])
def test_planted_links(box: Path, deliver: Deliver, directory: str, tmp_path: Path) -> None:
    """A link that waits under one of our names is neither followed nor taken for a delivery."""
    deliver()
    (name,) = _files(box)
    (box / name).unlink()
    victim = tmp_path / "victim"
    victim.write_bytes(HEAD + TEXT)
    planted = box / name if directory == "new" else box / "tmp" / f"{NAME.decode()}P{os.getpid()}.host.example"
    planted.symlink_to(victim)
    if directory == "new":
        with pytest.raises(Temporary):
            deliver()
        assert _files(box) == [name]
    else:
        deliver()
        assert _files(box) == [name]
        assert not (box / name).is_symlink()
    assert victim.read_bytes() == HEAD + TEXT


def test_left_over_of_our_pid(box: Path, deliver: Deliver) -> None:
    """What a dead process that had our pid has left in tmp/ is replaced."""
    (box / "tmp" / f"{NAME.decode()}P{os.getpid()}.host.example").write_bytes(b"half a mess")
    deliver()
    assert [path.read_bytes() for path in box.glob("new/*")] == [HEAD + TEXT]
    assert not list(box.glob("tmp/*"))


@pytest.mark.parametrize("gone", ["", "tmp", "new"])
def test_missing(box: Path, deliver: Deliver, gone: str) -> None:
    """Without the Maildir, or a part of it, the mailbox is in trouble: 4.2.1."""
    (box / gone).rename(box.parent / "elsewhere")
    with pytest.raises(Temporary) as caught:
        deliver()
    assert caught.value.status == "4.2.1"
    assert str(box) not in caught.value.public


@pytest.mark.parametrize(
    ("error", "status"),
    [(errno.EDQUOT, "4.2.2"), (errno.ENOSPC, "4.3.1"), (errno.EIO, "4.3.0"), (errno.EROFS, "4.2.1")],
)
def test_status(deliver: Deliver, monkeypatch: pytest.MonkeyPatch, error: int, status: str) -> None:
    """A full mailbox, a full disk and a broken one are told apart (RFC 3463)."""

    def refuse(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(Temporary) as caught:
        deliver()
    assert caught.value.status == status


def test_through_a_link(box: Path, deliver: Deliver) -> None:
    """A Maildir that its user has put elsewhere, behind a link, works."""
    box.rename(box.parent / "real")
    box.symlink_to("real")
    deliver()
    assert len(list((box.parent / "real").glob("new/*"))) == 1


@pytest.mark.parametrize(
    ("nodename", "name"), [("mx.example", b"mx.example"), ("a/b:c,d", b"a\\057b\\072c\\054d"), ("h" * 100, b"h" * 64)]
)
def test_host(monkeypatch: pytest.MonkeyPatch, nodename: str, name: bytes) -> None:
    """The host's name cannot break a file's name."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", nodename, "", "", "")))
    assert maildir.host() == name


def test_make(tmp_path: Path) -> None:
    """A new Maildir has three empty directories that only its owner can enter, and nothing else is left."""
    maildir.make(os.fsencode(tmp_path / "Maildir") + b"/")
    assert sorted(path.name for path in (tmp_path / "Maildir").iterdir()) == ["cur", "new", "tmp"]
    for path in (tmp_path / "Maildir", *(tmp_path / "Maildir").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["Maildir"]


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_make_what_exists(tmp_path: Path, kind: str) -> None:
    """Whatever has the name already stays as it is."""
    path = tmp_path / "Maildir"
    {"file": path.touch, "directory": path.mkdir, "link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(FileExistsError):
        maildir.make(os.fsencode(path))
    assert list(tmp_path.iterdir()) == [path]
    assert not path.is_dir() or not list(path.iterdir())


def _spy(monkeypatch: pytest.MonkeyPatch, box: Path) -> list[str]:
    """What is synced, linked and removed from here on, in order."""
    done: list[str] = []
    real_fsync, real_link, real_unlink = os.fsync, os.link, os.unlink

    def fsync(fd: int) -> None:
        done.append("sync " + os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{box}/").partition("/1")[0])
        real_fsync(fd)

    def link(source: bytes, target: bytes) -> None:
        real_link(source, target)
        done.append("link")

    def unlink(path: bytes) -> None:
        real_unlink(path)
        done.append("unlink")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "unlink", unlink)
    return done


def test_order(box: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is on the disk before it is in new/, and new/ is before success is said; so at a repetition."""
    done = _spy(monkeypatch, box)
    deliver()
    assert done == ["sync tmp", "link", "unlink", "sync new"]
    done.clear()
    deliver()
    assert done == ["sync tmp", "unlink", "sync new"]
    done.clear()
    deliver(possible_duplicate=True)
    assert done == ["sync new"]
