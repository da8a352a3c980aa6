"""Which .qmail file controls an address: the one search of qmail.md 13.2, for local and for who asks about a mailbox.

It looks with stat(2) and opens nothing, since userd runs it as root in homes where a link may lead to a device.  Nor
does userd follow links: its answer would tell a user which files there are where he may not look.
"""

import errno
import os
import stat
from typing import Final, NamedTuple

from qm.errors import TEMPORARY_ERRNO, Temporary
from qm.wire.dotqmail import SIZE_MAX, candidates, owner_names

WRITABLE: Final = 0o002  # by everybody: then it does not speak for its owner
_UNKNOWN: Final = TEMPORARY_ERRNO | {errno.EPERM, errno.EACCES}  # these do not say that there is no file


class Found(NamedTuple):
    name: bytes  # in the home
    default: bytes | None  # what DEFAULT is, if a default file matched


class Text(NamedTuple):
    text: bytes
    forward_only: bool


def _trouble(name: bytes, why: object, status: str = "3.0") -> Temporary:
    return Temporary("Unable to use the .qmail file.", detail=f"{os.fsdecode(name)}: {why}", status=status)


def _check(name: bytes, mode: int) -> None:
    if mode & WRITABLE:
        raise _trouble(name, "writable by everybody; chmod o-w", "7.0")


def _stat(name: bytes, home: int | None, deferring: frozenset[int]) -> os.stat_result | None:
    """None if there is no such file; raises Temporary for an error that is one of *deferring*."""
    try:
        return os.stat(name, dir_fd=home, follow_symlinks=home is None)
    except OSError as error:
        if error.errno in deferring:
            raise _trouble(name, error.strerror) from error
        return None


def search(home: int | None, dash: bytes, ext: bytes) -> Found | None:
    """The file for *ext* in the directory *home* (a descriptor; None: the current directory), or None.

    Raises Temporary if that cannot be told now, or if everybody may write the file.
    """
    for name, default in candidates(dash, ext):
        status = _stat(name, home, _UNKNOWN)
        if status is not None and stat.S_ISLNK(status.st_mode):
            return Found(name, default)  # its user will see, when mail is delivered
        if status is not None and stat.S_ISREG(status.st_mode):
            _check(name, status.st_mode)
            return Found(name, default)
    return None


def exists(home: bytes, dash: bytes, ext: bytes) -> bool:
    """Whether an address of the user with that home directory has a mailbox; raises Temporary as `search`."""
    if not dash:
        return True  # a user without .qmail gets the default delivery
    try:
        fd = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Temporary("Unable to enter a home directory.", detail=f"{os.fsdecode(home)}: {error.strerror}") from error
    try:
        return search(fd, dash, ext) is not None
    finally:
        os.close(fd)


def read(found: Found) -> Text:
    """The content of a file found in the current directory; raises Temporary."""
    try:
        fd = os.open(found.name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _trouble(found.name, error.strerror) from error
    try:
        status = os.fstat(fd)
        _check(found.name, status.st_mode)
        if not stat.S_ISREG(status.st_mode) or status.st_size > SIZE_MAX:
            raise _trouble(found.name, f"not a file of at most {SIZE_MAX} bytes")
        text = os.read(fd, status.st_size + 1)
    except OSError as error:
        raise _trouble(found.name, error.strerror) from error
    finally:
        os.close(fd)
    if len(text) != status.st_size:
        raise _trouble(found.name, "is just being changed")
    return Text(text, bool(status.st_mode & stat.S_IXUSR))


def has_owner(dash: bytes, ext: bytes) -> tuple[bool, bool]:
    """Whether the current directory has the -owner file of *ext*, and then also its -owner-default."""
    owner, default = owner_names(dash, ext)
    found = _stat(owner, None, TEMPORARY_ERRNO) is not None
    return found, found and _stat(default, None, TEMPORARY_ERRNO) is not None
