"""The search for a .qmail file (qmail.md 13.2)."""

import os
from pathlib import Path

import pytest

from qm.disk import dotqmail
from qm.disk.dotqmail import Found, Text
from qm.errors import Temporary
from qm.wire.dotqmail import SIZE_MAX


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, and the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(home: Path, name: str, text: bytes = b"./Maildir/\n", mode: int = 0o600) -> None:
    path = home / name
    path.write_bytes(text)
    path.chmod(mode)


def test_the_longest_name_wins(home: Path) -> None:
    """The whole extension comes before its defaults, and a longer default before a shorter one."""
    for name in (".qmail-default", ".qmail-foo-default", ".qmail-foo-bar"):
        _write(home, name)
        found = dotqmail.search(None, b"-", b"Foo-Bar")
        assert found is not None
        assert found.name == name.encode()


def test_default_is_told(home: Path) -> None:
    """What a default file stands for is told as the sender wrote it."""
    _write(home, ".qmail-foo-default")
    assert dotqmail.search(None, b"-", b"Foo-Bar.X") == Found(b".qmail-foo-default", b"Bar.X")


def test_no_file(home: Path) -> None:
    """Without a file there is None, however long the extension."""
    assert dotqmail.search(None, b"-", b"x") is None
    assert dotqmail.search(None, b"-", b"x" * 1000) is None
    assert dotqmail.search(None, b"-", b"a/b/c") is None
    assert dotqmail.search(None, b"", b"") is None


def test_other_directory(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The search looks in the directory that it is given."""
    other = tmp_path_factory.mktemp("other")
    _write(other, ".qmail-x")
    fd = os.open(other, os.O_PATH)
    assert dotqmail.search(fd, b"-", b"x") == Found(b".qmail-x", None)
    assert dotqmail.search(None, b"-", b"x") is None
    os.close(fd)


def test_only_regular_files_count(home: Path) -> None:
    """A directory, a pipe that nobody writes, a device and a link to nowhere are skipped, at once."""
    (home / ".qmail-a-default").mkdir()
    os.mkfifo(home / ".qmail-a-b-default")
    (home / ".qmail-a-b-c-default").symlink_to("/dev/zero")
    (home / ".qmail-a-b-c-d").symlink_to("nowhere")
    (home / ".qmail-a-b-c-d-default").symlink_to(".qmail-a-b-c-d-default")
    assert dotqmail.search(None, b"-", b"a-b-c-d") is None
    _write(home, ".qmail-default")
    assert dotqmail.search(None, b"-", b"a-b-c-d") == Found(b".qmail-default", b"a-b-c-d")


def test_a_link_to_a_file_counts(home: Path) -> None:
    """A user may link one .qmail file to another."""
    _write(home, ".qmail-a")
    (home / ".qmail-b").symlink_to(".qmail-a")
    assert dotqmail.search(None, b"-", b"b") == Found(b".qmail-b", None)


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o603])
def test_writable_by_everybody(home: Path, mode: int) -> None:
    """A file that everybody may write is a temporary failure, also where a file of lower rank would do."""
    _write(home, ".qmail-x", mode=mode)
    _write(home, ".qmail-default")
    with pytest.raises(Temporary) as caught:
        dotqmail.search(None, b"-", b"x")
    assert caught.value.status == "4.7.0"


@pytest.mark.parametrize("error", ["EIO", "EACCES", "EPERM", "ENOMEM", "ESTALE"])
def test_unknown_is_temporary(home: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """An error that does not say that there is no file is a temporary failure, never "no mailbox"."""
    number = getattr(__import__("errno"), error)

    def stat(*_: object, **__: object) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(Temporary):
        dotqmail.search(None, b"-", b"x")


def test_exists(home: Path) -> None:
    """A bare user has a mailbox always, an extension has one if the search finds a file."""
    path = os.fsencode(home)
    assert dotqmail.exists(path, b"", b"")
    assert not dotqmail.exists(path, b"-", b"x")
    _write(home, ".qmail-x")
    assert dotqmail.exists(path, b"-", b"x")


def test_exists_without_home(home: Path) -> None:
    """A home that cannot be entered is a temporary failure."""
    with pytest.raises(Temporary):
        dotqmail.exists(os.fsencode(home / "gone"), b"-", b"x")


@pytest.mark.parametrize("mode", [0o600, 0o700, 0o644, 0o610])
def test_read(home: Path, mode: int) -> None:
    """The content comes back, and the owner's execute bit as forward-only."""
    _write(home, ".qmail", b"&joe@x\n", mode)
    assert dotqmail.read(Found(b".qmail", None)) == Text(b"&joe@x\n", bool(mode & 0o100))


def test_read_checks_again(home: Path) -> None:
    """What has changed since the search is a temporary failure: gone, writable, no file, too large."""
    found = Found(b".qmail", None)
    with pytest.raises(Temporary):
        dotqmail.read(found)
    _write(home, ".qmail", mode=0o602)
    with pytest.raises(Temporary, match="chmod"):
        dotqmail.read(found)
    _write(home, ".qmail", mode=0o600)
    os.truncate(home / ".qmail", SIZE_MAX + 1)
    with pytest.raises(Temporary, match="file of at most"):
        dotqmail.read(found)
    (home / ".qmail").unlink()
    os.mkfifo(home / ".qmail")
    with pytest.raises(Temporary, match="file of at most"):
        dotqmail.read(found)


def test_a_file_under_change(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an editor is just writing is a temporary failure: half of it is not what its user wants."""
    _write(home, ".qmail", b"./Maildir/\n")
    real = os.fstat

    def before_the_rest_is_written(fd: int) -> os.stat_result:
        status = real(fd)
        with (home / ".qmail").open("ab") as file:
            file.write(b"&boss@x\n")
        return status

    monkeypatch.setattr(os, "fstat", before_the_rest_is_written)
    with pytest.raises(Temporary, match="just being changed"):
        dotqmail.read(Found(b".qmail", None))


@pytest.mark.parametrize(
    ("names", "result"),
    [
        ([], (False, False)),
        (["-owner"], (True, False)),
        (["-owner-default"], (False, False)),
        (["-owner", "-owner-default"], (True, True)),
    ],
)
def test_owner(home: Path, names: list[str], result: tuple[bool, bool]) -> None:
    """The owner files are seen, of any type; -owner-default counts with -owner only."""
    for name in names:
        (home / f".qmail-my:list{name}").mkdir()
    assert dotqmail.has_owner(b"-", b"My.list") == result
