"""maildir2mbox: move the messages of a Maildir to the end of an mbox (maildir2mbox).

Usage:   maildir2mbox
Reads:   the messages in $MAILDIR
Env:     MAIL (the mbox), MAILDIR, MAILTMP (the new mbox while it is written; in the same file system)
Writes:  $MAILTMP, which becomes $MAIL; removes the messages; fd 2 (what is wrong)
As:      whose mail it is
Exits:   0 moved, or nothing to move; 111 trouble: the mbox is as it was, or has the messages twice at worst
See:     maildir2mbox(1), qmail.md section 18

STEPS is the order that loses nothing: a message is removed from the Maildir only when the mbox that has it is on the
disk under its name.  A crash between the two leaves it in both.  The new mbox is locked, too, until all is done, so
that nobody sees it while the messages are in both.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from qm.disk import mbox
from qm.disk.maildir import sync_directory
from qm.disk.maildrop import Gone, Maildrop, sweep
from qm.disk.message import Message, write_all
from qm.errors import OK, TEMPORARY, Permanent, Temporary
from qm.unix import log
from qm.unix.program import Argv, Env, program
from qm.wire import date
from qm.wire.mboxrd import Quoter

NAME: Final = b"maildir2mbox"
_COPY: Final = 1024 * 1024  # bytes at a time
_OPENINGS: Final = 10  # of an mbox that others keep replacing
_RETURN_PATH: Final = b"Return-Path: <"
_BLANKS: Final = bytes.maketrans(b" \t", b"--")


class Transfer:
    """What the steps know; the current directory is the Maildir."""

    def __init__(self, mail: bytes, temporary: bytes) -> None:
        """Both are absolute, *mail* without symbolic links."""
        self.mail = mail
        self.temporary = temporary
        self.drop = Maildrop()
        self.numbers: list[int] = []  # of messages, in the order in which they go
        self.old_fd = -1  # of the mbox; holds the lock
        self.fd = -1  # of the new one
        self.created = False  # it is there, under its temporary name


def _lock(transfer: Transfer) -> None:
    """The mbox, which another of us may replace while we wait."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    for _ in range(_OPENINGS):
        transfer.old_fd = os.open(transfer.mail, flags, 0o600)
        mbox.check_regular(transfer.old_fd, transfer.mail)
        if not mbox.lock(transfer.old_fd, transfer.mail):
            raise Temporary("the mbox cannot be locked", detail=os.fsdecode(transfer.mail))
        if not mbox.is_replaced(transfer.old_fd, transfer.mail):
            return
        os.close(transfer.old_fd)
        transfer.old_fd = -1
    raise Temporary("the mbox keeps being replaced", detail=os.fsdecode(transfer.mail))


def _order(transfer: Transfer) -> None:
    """By the files' times."""
    times = []
    for number in transfer.drop.numbers():
        with suppress(Gone):
            fd, _ = transfer.drop.open(number)
            times.append((os.fstat(fd).st_mtime_ns, number))
            os.close(fd)
    transfer.numbers = [number for _, number in sorted(times)]


def _create(transfer: Transfer) -> None:
    with suppress(FileNotFoundError):
        os.unlink(transfer.temporary)  # a crash has left it; nobody else writes it, we have the lock
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    transfer.fd = os.open(transfer.temporary, flags, 0o600)
    transfer.created = True
    mbox.lock(transfer.fd, transfer.temporary)
    status = os.fstat(transfer.old_fd)
    if os.geteuid() == 0:
        os.fchown(transfer.fd, status.st_uid, status.st_gid)
    os.fchmod(transfer.fd, status.st_mode & 0o777)


def _copy(transfer: Transfer) -> None:
    position = 0
    while chunk := os.pread(transfer.old_fd, _COPY, position):
        write_all(transfer.fd, chunk)
        position += len(chunk)
    write_all(transfer.fd, mbox.gap(transfer.fd, position))


def _from_line(head: bytes, mtime_s: int) -> bytes:
    """For a message that begins with *head*."""
    line = head.partition(b"\n")[0]
    sender = b"XXX"
    if line.startswith(_RETURN_PATH) and line.endswith(b">"):
        sender = line[len(_RETURN_PATH) : -1].translate(_BLANKS) or b"MAILER-DAEMON"
    return b"From " + sender + b" " + date.mbox_from(mtime_s) + b"\n"


def _pieces(message: Message) -> Iterator[bytes]:
    yield _from_line(message.head, int(os.fstat(message.fd).st_mtime))
    quoter = Quoter()
    for chunk in message.chunks():
        yield quoter.feed(chunk)
    yield quoter.end() + b"\n"


def _append(transfer: Transfer) -> None:
    for number in transfer.numbers:
        try:
            fd, _ = transfer.drop.open(number)
        except Gone:
            continue  # its reader has removed it
        try:
            for piece in _pieces(Message(fd)):
                write_all(transfer.fd, piece)
        finally:
            os.close(fd)
        transfer.drop.delete(number)


def _sync(transfer: Transfer) -> None:
    os.fsync(transfer.fd)


def _replace(transfer: Transfer) -> None:
    os.rename(transfer.temporary, transfer.mail)
    transfer.created = False


def _sync_directory(transfer: Transfer) -> None:
    sync_directory(os.path.dirname(transfer.mail))


def _remove(transfer: Transfer) -> None:
    transfer.drop.remove_deleted()
    for why in transfer.drop.failed:
        log.warning(NAME, f"a message is in the mbox, but stays in the Maildir: {why}")
    with suppress(OSError):  # at worst they come back, and are in both
        transfer.drop.sync()


STEPS: Final[tuple[Callable[[Transfer], None], ...]] = (
    _lock,
    _order,
    _create,
    _copy,
    _append,
    _sync,
    _replace,
    _sync_directory,
    _remove,
)


def transfer(work: Transfer) -> None:
    """Raises Temporary; the mbox is then as it was, unless only its directory could not be synced."""
    try:
        for step in STEPS:
            step(work)
    except BaseException as error:
        if work.created:
            with suppress(OSError):  # the next run does it
                os.unlink(work.temporary)
        if isinstance(error, OSError):
            raise Temporary("cannot write the mbox", detail=f"{os.fsdecode(work.mail)}: {error.strerror}") from error
        raise
    finally:
        for fd in (work.fd, work.old_fd):
            if fd >= 0:
                with suppress(OSError):  # all is on the disk, or does not matter
                    os.close(fd)


def _path(env: Env, name: bytes) -> bytes:
    path = env.get(name, b"")
    if not path:
        raise Permanent(f"{name.decode()} is not set")
    return path


@program(at_home=False, permanent=TEMPORARY)
def main(argv: Argv, env: Env) -> int:
    mail = os.path.realpath(_path(env, b"MAIL"))
    temporary = os.path.abspath(_path(env, b"MAILTMP"))
    maildir = _path(env, b"MAILDIR")
    if os.path.realpath(temporary) == mail:
        raise Permanent("MAIL and MAILTMP name one file")
    try:
        os.chdir(maildir)
        sweep(time.time())
        work = Transfer(mail, temporary)
    except OSError as error:
        raise Temporary("cannot read the Maildir", detail=f"{os.fsdecode(maildir)}: {error.strerror}") from error
    if work.drop.numbers():
        transfer(work)
    return OK
