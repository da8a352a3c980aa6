"""A Maildir as POP3 sees it: numbered messages, marks, and what QUIT does to the disk.

The current directory is the Maildir.  What the names tell (age, size, identity) is not asked of the files, so that a
mailbox of 100,000 messages opens at once.  Only regular files are messages; nothing planted in the Maildir is followed
or waited for.  Other programs may rename and remove files meanwhile: a message is known by its unique name, the part
before the colon.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from qm.errors import Temporary
from qm.wire import maildirname
from qm.wire.maildirname import unique
from qm.wire.multiline import WireSize

T = TypeVar("T")

LOCK: Final = b"pop3d.lock"
STALE_S: Final = 36 * 3600  # a file in tmp/ this old has no writer: deliveries give up after 24 h
CHUNK: Final = 262144  # bytes of a message in memory at once
_SWEEP_MAX: Final = 1000  # files of tmp/ that one session looks at
_FRESH_S: Final = 1.0  # a listing this old still tells where a message went
_PASSES: Final = 5  # looks at a mailbox that others rename while we delete
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))


class InUse(Temporary):
    """Another session has the mailbox."""


class Gone(Exception):
    """The message is no longer there, or no longer a regular file."""


def lock() -> int:
    """Lock the mailbox for one session; gives the descriptor that holds the lock.  Raises InUse, Temporary."""
    try:
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _FULL:
            raise Temporary("cannot lock the mailbox", detail=f"{LOCK.decode()}: {error.strerror}") from error
        fd = os.open(b".", _DIRECTORY)  # a full disk must not keep its owner from removing mail
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise InUse("another session has the mailbox") from error
        raise Temporary("cannot lock the mailbox", detail=f"{LOCK.decode()}: {error.strerror}") from error
    return fd


def sweep(now_s: float) -> None:
    """Remove what writers left in tmp/ more than 36 h ago; mail can be read also where that does not work."""
    with suppress(OSError), os.scandir(b"tmp") as entries:
        for entry, _ in zip(entries, range(_SWEEP_MAX), strict=False):
            status = entry.stat(follow_symlinks=False)
            if max(status.st_atime, status.st_mtime) < now_s - STALE_S and stat.S_ISREG(status.st_mode):
                _unlink_quietly(entry.path)


def _unlink_quietly(path: bytes) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # gone, or the next session's


def _listing(directory: bytes) -> list[bytes]:
    """Paths of the regular files that are not hidden."""
    prefix = directory + b"/"
    with os.scandir(directory) as entries:
        return [prefix + e.name for e in entries if e.is_file(follow_symlinks=False) and not e.name.startswith(b".")]


def _age_and_name(path: bytes) -> tuple[int, bytes]:
    """What messages are numbered by: the time that the name begins with, else the file's."""
    born_at_s = maildirname.born_at_s(path)
    if born_at_s is None:
        try:
            born_at_s = int(os.lstat(path).st_mtime)
        except OSError:
            born_at_s = 0  # gone already
    return born_at_s, path[4:]


class Maildrop:
    """The messages of one session; message numbers start at 1 and stay."""

    def __init__(self) -> None:
        """List new/ and cur/; raises OSError."""
        new = _listing(b"new")  # before cur/: what moves meanwhile is then seen twice, not never
        cur = _listing(b"cur")
        # one message in both is what a crash may leave of a rename: the one in cur/ stands for it
        known = {unique(path) for path in cur} if new else set()
        self._twins = {unique(path): path for path in new if unique(path) in known}
        self._paths = cur + [path for path in new if unique(path) not in self._twins]
        self._paths.sort(key=_age_and_name)
        self._sizes: list[int | None] = [None] * len(self._paths)
        self._deleted: set[int] = set()
        self._changed: set[bytes] = set()  # directories
        self._seen: dict[bytes, bytes] = {}  # unique names to paths, of the last look
        self._seen_at_s = -_FRESH_S
        self.removed = 0
        self.failed: list[str] = []  # why messages could not be removed

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, number: int) -> bool:
        """Whether *number* is a message that is not marked as deleted."""
        return 0 < number <= len(self._paths) and number not in self._deleted

    def numbers(self) -> list[int]:
        """The messages that are not marked as deleted."""
        everything = range(1, len(self._paths) + 1)
        return [n for n in everything if n not in self._deleted] if self._deleted else list(everything)

    def uidl(self, number: int) -> bytes:
        return maildirname.uidl(unique(self._paths[number - 1]))

    def size(self, number: int) -> int:
        """Octets on the wire: from the name, else counted once; 0 if the message is gone or cannot be read."""
        size = self._sizes[number - 1]
        if size is None:
            size = maildirname.wire_size(self._paths[number - 1])
            size = self._sizes[number - 1] = self._count(number) if size is None else size
        return size

    def _count(self, number: int) -> int:
        wire = WireSize()
        try:
            fd, _ = self.open(number)
            with open(fd, "rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    wire.feed(chunk)
        except (Gone, OSError):
            return 0
        return wire.total

    def delete(self, number: int) -> None:
        """Mark a message; it is removed by QUIT."""
        self._deleted.add(number)

    def undelete_all(self) -> None:
        self._deleted.clear()

    def open(self, number: int) -> tuple[int, int]:
        """A descriptor of the message and its file's size; raises Gone, OSError."""
        fd = self._on_file(number, lambda path: os.open(path, _OPEN))
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return fd, status.st_size
        os.close(fd)
        raise Gone

    def _on_file(self, number: int, act: Callable[[bytes], T]) -> T:
        """*act* on the message's file, wherever another program has moved it; raises Gone, OSError."""
        for _ in range(_PASSES):
            try:
                return act(self._paths[number - 1])
            except FileNotFoundError:
                self._find(number)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise Gone from error
                raise
        raise Gone

    def _find(self, number: int) -> None:
        """Where the message went; raises Gone."""
        old = self._paths[number - 1]
        path = self._seen.get(unique(old))
        if path == old or time.monotonic() - self._seen_at_s > _FRESH_S:
            path = self._look().get(unique(old))
        if path is None:
            raise Gone
        self._paths[number - 1] = path

    def _look(self) -> dict[bytes, bytes]:
        self._seen = {unique(path): path for directory in (b"new", b"cur") for path in _listing(directory)}
        self._seen_at_s = time.monotonic()
        return self._seen

    # What QUIT does, in this order (QUIT_STEPS); nothing before the last step has been promised to anybody.

    def remove_deleted(self) -> None:
        """Unlink what is marked; what others rename under our hands is gone when a fresh look does not find it."""
        missing = [number for number in sorted(self._deleted) if not self._remove(number)]
        for _ in range(_PASSES):
            if not missing:
                return
            found = self._look()
            missing = [number for number in missing if unique(self._paths[number - 1]) in found]
            for number in missing:
                self._paths[number - 1] = found[unique(self._paths[number - 1])]
            missing = [number for number in missing if not self._remove(number)]
        self.failed.extend("it keeps being renamed" for _ in missing)

    def _remove(self, number: int) -> bool:
        """Whether the message is settled: unlinked, or known not to let itself be; False if it is not where it was."""
        path = self._paths[number - 1]
        twin = self._twins.get(unique(path)) if self._twins else None
        self._changed.add(path[:3])  # also if another program removed it: its absence is what we promise
        try:
            if twin is not None:
                self._changed.add(twin[:3])
                _unlink_quietly(twin)
            os.unlink(path)
            self.removed += 1
        except FileNotFoundError:
            return False
        except OSError as error:
            self.failed.append(f"{os.fsdecode(path)}: {error.strerror}")
        return True

    def move_seen(self) -> None:
        """new/X becomes cur/X:2, as any Maildir reader does.  A rename is whole or not at all; nobody waits for it."""
        for number in self.numbers():
            path = self._paths[number - 1]
            if path.startswith(b"new/"):
                try:
                    os.rename(path, b"cur/" + path[4:] + (b"" if b":" in path else b":2,"))
                    self._changed.update((b"new", b"cur"))
                except OSError:
                    pass  # moved by another program, or it stays new

    def sync(self) -> None:
        """Make removals last; raises OSError.  cur/ first, so that what was moved is never in neither."""
        if self._deleted:
            for directory in sorted(self._changed):
                fd = os.open(directory, _DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


QUIT_STEPS: Final[tuple[Callable[[Maildrop], None], ...]] = (
    Maildrop.remove_deleted,
    Maildrop.move_seen,
    Maildrop.sync,
)
