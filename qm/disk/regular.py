"""Files in directories that somebody else can write: what is planted there is neither followed nor waited for."""

import errno
import os
import stat
from typing import Final

_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WHAT: Final = {
    errno.EISDIR: "a directory, not a file",
    errno.ELOOP: "a symbolic link, not a file",
    errno.ENXIO: "a socket or FIFO, not a file",
}


class Irregular(OSError):
    """It is no regular file; strerror says what."""


def open_regular(
    path: str | bytes | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600, dir_fd: int | None = None
) -> int:
    """As os.open, of a regular file; raises OSError, and Irregular for anything else that has that name."""
    try:
        fd = os.open(path, flags | _FLAGS, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _WHAT:
            raise Irregular(error.errno, _WHAT[error.errno], path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Irregular(errno.EINVAL, "not a regular file", path)
    return fd
