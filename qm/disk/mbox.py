"""mbox files: appending a message (qmail.md 13.7).

The format is mboxrd (qm.wire.mboxrd): a From_ line, the message quoted, an empty line.  Readers and writers agree by
flock(2).  A message that cannot be written whole is taken off again, unless the file could not be locked: another's may
follow it then.
"""

import errno
import fcntl
import mmap
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from qm.disk.maildir import sync_directory
from qm.disk.message import Message, write_all
from qm.errors import Temporary
from qm.wire.mboxrd import Quoter

LOCK_S: Final = 30.0  # qmail.md 13.7
_OPENINGS: Final = 10  # of a file that others keep replacing
SEARCH_MAX: Final = 1 << 30  # bytes at the end of a file that are searched for an earlier delivery of the same message
_WRITE: Final = 262144  # bytes that are gathered for one write
_KEY_MAX: Final = 2048  # bytes that tell a message: its Received line has an ID
_STATUS: Final = {errno.EDQUOT: "2.2", errno.ENOSPC: "3.1"}


class Delivery:
    """One message on its way into one mbox; the steps share it."""

    def __init__(self, path: bytes, from_line: bytes, head: bytes, message: Message, possible_duplicate: bool) -> None:
        """*head* are the lines that go before the message, without the From_ line."""
        self.path = path
        self.from_line = from_line
        self.head = head
        self.message = message
        self.possible_duplicate = possible_duplicate
        self.delivered = False  # by an earlier try
        self.fd = -1
        self.locked = False
        self.end = -1  # of the file, before we write to it

    def pieces(self) -> Iterator[bytes]:
        """What is written after the From_ line."""
        quoter = Quoter()
        for chunk in self.message.chunks(self.head):
            yield quoter.feed(chunk)
        yield quoter.end() + b"\n"


def _open(delivery: Delivery) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    delivery.fd = os.open(delivery.path, flags, 0o600)
    check_regular(delivery.fd, delivery.path)


def check_regular(fd: int, path: bytes) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Temporary("The mbox is not a regular file.", detail=os.fsdecode(path), status="2.1")


def _alarm(signum: int, frame: object) -> NoReturn:
    raise TimeoutError(errno.ETIMEDOUT, "alarm")


@contextmanager
def _limit(limit_s: float) -> Iterator[None]:
    """Raise TimeoutError in a system call that takes longer; not for use in threads."""
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, limit_s, 1.0)  # again each second: the first may come just before the call
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def lock(fd: int, path: bytes) -> bool:
    """Lock the mbox on *fd*; False if it can have no lock.  Raises Temporary when another has had it for LOCK_S."""
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with _limit(LOCK_S):
                fcntl.flock(fd, fcntl.LOCK_EX)
        return True
    except TimeoutError as error:
        raise Temporary(f"The mbox was locked for {LOCK_S:.0f} seconds.", detail=os.fsdecode(path)) from error
    except OSError:
        return False


def is_replaced(fd: int, path: bytes) -> bool:
    """Whether the file on *fd* is *path* no more: who had the lock, as maildir2mbox, may have put another there."""
    try:
        return not os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return True


def _lock(delivery: Delivery) -> None:
    for _ in range(_OPENINGS):
        delivery.locked = lock(delivery.fd, delivery.path)  # else unlocked, as qmail
        if not is_replaced(delivery.fd, delivery.path):
            return
        os.close(delivery.fd)
        delivery.fd, delivery.locked = -1, False
        _open(delivery)
    raise Temporary("The mbox keeps being replaced.", detail=os.fsdecode(delivery.path))


def _measure(delivery: Delivery) -> None:
    delivery.end = os.lseek(delivery.fd, 0, os.SEEK_END)
    if delivery.possible_duplicate and delivery.end:
        _resume(delivery)


def _find(delivery: Delivery) -> tuple[int, int] | None:
    """Where an earlier try's From_ line begins and ends; None without one, or if too little of it is left to tell."""
    key = next(delivery.pieces())[:_KEY_MAX]
    begin = max(0, delivery.end - SEARCH_MAX) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(delivery.fd, delivery.end - begin, access=mmap.ACCESS_READ, offset=begin) as text:
        at = text.rfind(key)
        line = text.rfind(b"\n", 0, max(at - 1, 0)) + 1
        if at < 0 or not text[line:at].startswith(b"From "):
            return None
    return begin + line, begin + at


def _resume(delivery: Delivery) -> None:
    """See what an earlier try has left: all of the message, or a beginning, which is taken off."""
    found = _find(delivery)
    if found is None:
        return
    begin, position = found
    for piece in delivery.pieces():
        there = os.pread(delivery.fd, len(piece), position)
        position += len(there)
        if there != piece:
            if piece.startswith(there) and position == delivery.end and delivery.locked:
                os.ftruncate(delivery.fd, begin)
                delivery.end = begin
            return
    delivery.delivered = True


def gap(fd: int, end: int) -> bytes:
    """What another writer's cut message, at the *end* of the file on *fd*, lacks, so that a From_ line is one."""
    tail = os.pread(fd, 2, max(0, end - 2))
    return b"" if not end or tail == b"\n\n" else b"\n" if tail.endswith(b"\n") else b"\n\n"


def _write(delivery: Delivery) -> None:
    if delivery.delivered:
        return
    data = gap(delivery.fd, delivery.end) + delivery.from_line
    for piece in delivery.pieces():
        data += piece
        if len(data) >= _WRITE:
            write_all(delivery.fd, data)
            data = b""
    write_all(delivery.fd, data)


def _sync(delivery: Delivery) -> None:
    os.fsync(delivery.fd)
    if delivery.end == 0:
        sync_directory(os.path.dirname(delivery.path) or b".")


STEPS: Final[tuple[Callable[[Delivery], None], ...]] = (_open, _lock, _measure, _write, _sync)


def _undo(delivery: Delivery) -> str:
    """Take off what we have written; gives what to log if that failed."""
    if delivery.end < 0 or delivery.delivered:
        return ""
    if not delivery.locked:
        return "; it could not be locked, so what was written stays"
    try:
        os.ftruncate(delivery.fd, delivery.end)
    except OSError as error:
        return f"; what was written stays: {error.strerror}"
    return ""


def _trouble(delivery: Delivery, error: OSError, rest: str) -> Temporary:
    status = _STATUS.get(error.errno or 0, "2.1" if delivery.fd < 0 else "3.0")
    detail = f"{os.fsdecode(delivery.path)}: {error.strerror}{rest}"
    return Temporary(f"Unable to deliver to the mbox: {error.strerror}.", detail=detail, status=status)


def deliver(delivery: Delivery) -> None:
    """Append a message to an mbox; raises Temporary, and then the file is as it was if it could be locked."""
    try:
        for step in STEPS:
            step(delivery)
    except OSError as error:
        raise _trouble(delivery, error, _undo(delivery)) from error
    except BaseException:
        _undo(delivery)
        raise
    finally:
        if delivery.fd >= 0:
            with suppress(OSError):  # it is on the disk already, or taken off again
                os.close(delivery.fd)
