"""Replacing a file as a whole."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from qm.disk import atomic
from qm.errors import Temporary


class _Crash(BaseException):
    """The power has failed."""


def _fill(file: BinaryIO) -> None:
    file.write(b"new")


@pytest.mark.parametrize("cut", range(len(atomic.STEPS) + 1))
def test_cut_after_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """After a crash between any two steps the file is the old one or the new one, whole; the next writer goes on."""
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def crash(work: object) -> None:
        raise _Crash

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "STEPS", (*atomic.STEPS[:cut], crash))
        patch.setattr(atomic, "_discard", lambda work: None)  # a dead process tidies nothing
        with pytest.raises(_Crash):
            atomic.replace(str(path), _fill, mode=0o600)
    assert path.read_bytes() == (b"new" if cut >= 4 else b"old")
    atomic.replace(str(path), _fill, mode=0o600)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def _failing(number: int) -> Callable[..., None]:
    def fail(*arguments: object, **names: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "fchmod", "fsync", "rename"])
def test_a_call_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """A system call that fails is a temporary failure that names the file; the old file stays, alone."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _failing(number))
        with pytest.raises(Temporary, match=f"x: {os.strerror(number)}"):
            atomic.replace(str(path), _fill, mode=0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_writer_that_fails(tmp_path: Path) -> None:
    """A failure while the content is written leaves the old file, and nothing else."""
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        raise Temporary("no")

    with pytest.raises(Temporary, match="no"):
        atomic.replace(str(path), fill, mode=0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link in the place of the temporary file is removed, and what it points to is not touched."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "x.tmp").symlink_to(tmp_path / "victim")
    atomic.replace(str(tmp_path / "x"), _fill, mode=0o600)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.needs_root
def test_root_leaves_files_to_their_owner(tmp_path: Path) -> None:
    """When root edits somebody's private system, the files stay that somebody's."""
    os.chown(tmp_path, 12345, 23456)
    atomic.replace(str(tmp_path / "x"), _fill, mode=0o600)
    status = (tmp_path / "x").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)
    os.chown(tmp_path / "x", 12346, 23457)
    atomic.replace(str(tmp_path / "x"), _fill, mode=0o600)
    status = (tmp_path / "x").stat()
    assert (status.st_uid, status.st_gid) == (12346, 23457)
