"""Maildirs: delivering to them and making them (docs/INTERNALS.md 5).

A delivery has the same name at each try, derived from the message's ID, the recipient's number and the .qmail line, and
reaches new/ only when it is whole and on the disk.  So a repetition is seen: by link(2), or by looking for the name.

    tmp/TIME.Q<id>R<n>L<line>P<pid>.HOST          being written; a crash leaves it for the 36 h sweep of tmp/
    new/TIME.Q<id>R<n>L<line>.HOST,S=size,W=size  S: bytes of the file; W: with CR LF at each line's end

TIME is the message's birth, not the delivery's: readers that sort by name show messages in the order they came in.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qm.disk.message import Message, write_all
from qm.errors import Temporary
from qm.wire import queueid
from qm.wire.multiline import WireSize

HOST_MAX: Final = 64  # bytes of the host's name in a file name, as qmail
_STAGING_MAX: Final = 200  # bytes of the name that stand in the working name; with the pid below NAME_MAX
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STATUS: Final = {
    errno.EDQUOT: "2.2",
    errno.ENOSPC: "3.1",
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS), "2.1"),
}


def host() -> bytes:
    """This host's name as it stands in file names: without the bytes that mean something there."""
    name = os.fsencode(os.uname().nodename)
    return name.replace(b"/", b"\\057").replace(b":", b"\\072").replace(b",", b"\\054")[:HOST_MAX]


def unique(message_id: bytes, recipient: int, line: int) -> bytes:
    """What names this delivery and no other, the same at each try: the part of the name before the host."""
    return b"%d.Q%sR%dL%d" % (queueid.time_ns(message_id) // 1_000_000_000, message_id, recipient, line)


class Delivery:
    """One message on its way into one Maildir: what the steps know."""

    def __init__(self, directory: bytes, name: bytes, head: bytes, message: Message, host_name: bytes) -> None:
        """*name* is `unique`; *head* are the lines that go before the message."""
        self.directory = directory.rstrip(b"/")
        self.name = name
        self.head = head
        self.message = message
        self.host = host_name
        self.tmp = b"%s/tmp/%sP%d.%s" % (self.directory, name, os.getpid(), host_name)
        self.new = b""  # its path there, known when the sizes are
        self.size = 0
        self.fd = -1  # of tmp
        self.linked = False  # new is there, and we made it


def _create(delivery: Delivery) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        delivery.fd = os.open(delivery.tmp, flags, 0o600)
    except FileExistsError:
        os.unlink(delivery.tmp)  # its writer had our pid, and so has died
        delivery.fd = os.open(delivery.tmp, flags, 0o600)


def _write(delivery: Delivery) -> None:
    size, wire = 0, WireSize()
    for data in delivery.message.chunks(delivery.head):
        write_all(delivery.fd, data)
        size += len(data)
        wire.feed(data)
    delivery.size = size
    delivery.new = b"%s/new/%s.%s,S=%d,W=%d" % (delivery.directory, delivery.name, delivery.host, size, wire.total)


def _sync(delivery: Delivery) -> None:
    os.fsync(delivery.fd)


def _close(delivery: Delivery) -> None:
    fd, delivery.fd = delivery.fd, -1
    os.close(fd)


def _link(delivery: Delivery) -> None:
    try:
        os.link(delivery.tmp, delivery.new)
        delivery.linked = True
    except FileExistsError:
        status = os.lstat(delivery.new)
        if not stat.S_ISREG(status.st_mode) or status.st_size != delivery.size:
            raise
        # an earlier try got as far as this; the directory may not be on the disk yet


def _unlink(delivery: Delivery) -> None:
    _discard(delivery.tmp)


def _sync_new(delivery: Delivery) -> None:
    sync_directory(delivery.directory + b"/new")


STEPS: Final[tuple[Callable[[Delivery], None], ...]] = (_create, _write, _sync, _close, _link, _unlink, _sync_new)


def sync_directory(path: bytes) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _discard(path: bytes) -> None:
    with suppress(OSError):  # not there, or litter for the sweep
        os.unlink(path)


def _undo(delivery: Delivery) -> None:
    if delivery.fd >= 0:
        with suppress(OSError):  # what it could not write goes anyway
            os.close(delivery.fd)
    _discard(delivery.tmp)
    if delivery.linked:
        _discard(delivery.new)  # it may not be on the disk, and will be delivered again


def _delivered(delivery: Delivery) -> bool:
    """Whether an earlier try has got it into new/, or a reader from there into cur/; it is then on the disk."""
    for path in (delivery.directory + b"/new", delivery.directory + b"/cur"):  # a reader moves it in this order
        if _holds(path, delivery.name + b"."):
            sync_directory(path)
            return True
    return False


def _holds(path: bytes, prefix: bytes) -> bool:
    try:
        with os.scandir(path) as entries:
            return any(entry.name.startswith(prefix) for entry in entries)
    except FileNotFoundError:
        return False  # a Maildir may do without cur/; new/ is missed later


def deliver(delivery: Delivery, *, possible_duplicate: bool = False) -> None:
    """Put a message into a Maildir; raises Temporary, with nothing left but what a failing disk refuses to remove."""
    try:
        if possible_duplicate and _delivered(delivery):
            return
        for step in STEPS:
            step(delivery)
    except OSError as error:
        _undo(delivery)
        status = _STATUS.get(error.errno or 0, "3.0")
        detail = f"{os.fsdecode(delivery.directory)}: {error.strerror}"
        raise Temporary(f"Unable to deliver to the Maildir: {error.strerror}.", detail=detail, status=status) from error
    except BaseException:
        _undo(delivery)
        raise


def _remove_empty(path: bytes) -> None:
    for directory in (*_parts(path), path):
        with suppress(OSError):  # not there, or not ours to empty
            os.rmdir(directory)


def _parts(path: bytes) -> list[bytes]:
    return [path + name for name in (b"/tmp", b"/new", b"/cur")]


def make(path: bytes) -> None:
    """Make the Maildir *path*, whole or not at all; raises OSError, FileExistsError if something has that name."""
    parent, base = os.path.split(path.rstrip(b"/"))
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    staging = os.path.join(parent, b".%s.%d" % (base[:_STAGING_MAX], os.getpid()))
    _remove_empty(staging)  # a crash of somebody with our pid
    try:
        for directory in (staging, *_parts(staging)):
            os.mkdir(directory, 0o700)
        sync_directory(staging)
        os.rename(staging, path.rstrip(b"/"))
        sync_directory(parent or b".")  # or mail that is kept in it would go with it
    finally:
        _remove_empty(staging)
