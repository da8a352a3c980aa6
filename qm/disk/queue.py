"""The queue's names: directories and files below the home; who makes them, and what is swept or put aside.

    queue/tmp/ID     being written
    queue/new/ID     accepted and durable; send has not seen it
    queue/cur/ID     send works on it
    queue/state/ID   what happened to its recipients so far
    queue/held/ID    accepted and durable, over a limit of its login: nobody works on it until it is released
    queue/import/ID  read by `qm import`, which has not let it go yet (qm.disk.staged); made when it is needed
    queue/bad/ID     a file that fails its own check: kept, reported, never delivered, never deleted by us
    queue/lock       held by the service
    queue/trigger    FIFO: the IDs of what has come into new/, a line each
    queue/socket     the service's door

queue/ itself is made with the home; the modes are those of qm.disk.layout.  All below it belongs to qmailq and its
group, which send shares; others may pass through queue/ to the socket, no further.
"""

import os
import stat
from typing import Final

from qm.disk import layout
from qm.errors import Temporary

QUEUE: Final = "queue"
TMP: Final = "queue/tmp"
NEW: Final = "queue/new"
CUR: Final = "queue/cur"
STATE: Final = "queue/state"
HELD: Final = "queue/held"
IMPORT: Final = "queue/import"
BAD: Final = "queue/bad"
LOCK: Final = "queue/lock"
TRIGGER: Final = "queue/trigger"
SOCKET: Final = "queue/socket"

STALE_S: Final = 36 * 3600  # a file of tmp/ that old has no writer any more; above DEATH_S of qm.queue
UMASK: Final = 0o027  # of whoever writes here: send, of the same group, must be able to read
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_directory(path: str) -> None:
    """Make *path*, or set its mode right; raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    fd = os.open(path, _OPEN)
    try:
        os.fchmod(fd, layout.mode(path))
    finally:
        os.close(fd)


def make() -> None:
    """Make what is missing below queue/, as its owner.  Raises Temporary that names the path."""
    try:
        for path in (TMP, NEW, CUR, STATE, HELD, BAD):
            make_directory(path)
        path = TRIGGER
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            raise Temporary("cannot make the queue", detail=f"{path}: not a FIFO; remove it")
        os.chmod(path, layout.mode(path))
        path = QUEUE
        sync_directory(path)  # a message is no safer than the directory that it is in
    except OSError as error:
        raise Temporary("cannot make the queue", detail=f"{path}: {error.strerror}") from error


def sweep(now_s: float, path: str = TMP) -> int:
    """Remove what is STALE_S old in tmp/; how many files that were.  Raises OSError if it cannot be read."""
    swept = 0
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.stat(follow_symlinks=False).st_mtime < now_s - STALE_S:
                    os.unlink(entry.path)
                    swept += 1
            except OSError:
                pass  # its writer has just finished, or it is no file of ours
    return swept


def sync_directory(path: str) -> None:
    """Make the names in *path* durable; raises OSError."""
    fd = os.open(path, _OPEN)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(directory: str, name: bytes) -> None:
    """Move the corrupt file *name* of *directory* to bad/, never over another one; raises OSError.

    Only send does this; a link, which would refuse by itself, is forbidden to it (fs.protected_hardlinks).
    """
    source = os.path.join(os.fsencode(directory), name)
    target = free = os.path.join(os.fsencode(BAD), name)
    count = 0
    while os.path.lexists(free):
        count += 1
        free = b"%b.%d" % (target, count)
    os.rename(source, free)
    sync_directory(BAD)
    sync_directory(directory)
