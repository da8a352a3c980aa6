"""A file replaced as a whole: whoever reads it, at any moment and after any crash, finds the old one or the new one.

Two writers of one file must hold a lock; readers need none.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

from qm.errors import Temporary


class _Replacement:
    def __init__(
        self, path: str, temporary: str, fill: Callable[[BinaryIO], object], mode: int, owner: tuple[int, int] | None
    ) -> None:
        self.path = path
        self.temporary = temporary
        self.fill = fill
        self.mode = mode
        self.owner = owner
        self.fd = -1


def _owner(path: str) -> tuple[int, int]:
    """Who owns *path*; a file that is not there yet would belong to the owner of its directory."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        status = os.stat(os.path.dirname(path) or ".")
    return status.st_uid, status.st_gid


def _create(work: _Replacement) -> None:
    with suppress(FileNotFoundError):
        os.unlink(work.temporary)  # a crash has left it
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    work.fd = os.open(work.temporary, flags, 0o600)
    if os.geteuid() == 0:  # root edits a private system that belongs to somebody else
        os.fchown(work.fd, *(work.owner or _owner(work.path)))
    os.fchmod(work.fd, work.mode)


def _write(work: _Replacement) -> None:
    with open(work.fd, "w+b", closefd=False) as file:
        work.fill(file)


def _sync(work: _Replacement) -> None:
    os.fsync(work.fd)


def _rename(work: _Replacement) -> None:
    os.rename(work.temporary, work.path)


def _sync_directory(work: _Replacement) -> None:
    fd = os.open(os.path.dirname(work.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


STEPS: Final = (_create, _write, _sync, _rename, _sync_directory)


def replace(
    path: str,
    fill: Callable[[BinaryIO], object],
    *,
    mode: int,
    temporary: str = "",
    owner: tuple[int, int] | None = None,
) -> None:
    """Make *path* what *fill* writes; *temporary*, in the same file system, is *path*.tmp if not given.

    If root does it, *owner* is who gets it; by default who has it, or its directory.

    Raises Temporary that names the file; then nothing is left behind, and *path* is the old file, unless only the last
    fsync failed.
    """
    work = _Replacement(path, temporary or path + ".tmp", fill, mode, owner)
    try:
        for step in STEPS:
            step(work)
    except OSError as error:
        _discard(work)
        raise Temporary("cannot write a file", detail=f"{path}: {error.strerror}") from error
    except BaseException:
        _discard(work)
        raise
    finally:
        if work.fd >= 0:
            os.close(work.fd)


def _discard(work: _Replacement) -> None:
    if work.fd >= 0:
        with suppress(OSError):  # it is the new file already, or the next writer removes it
            os.unlink(work.temporary)
