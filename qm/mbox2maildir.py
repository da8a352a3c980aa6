"""mbox2maildir: copy the messages of an mbox into a Maildir (mbox2maildir of qmail's companions).

Usage:   mbox2maildir mbox maildir
Reads:   the mbox, under its lock
Writes:  the Maildir, which is there; fd 2 (what is wrong)
As:      whose mail it is
Exits:   0 all are there; 100 usage, or no mbox; 111 trouble: what has been copied is there, and the next run copies the
         rest
See:     mbox2maildir(1), maildir2mbox(1), maildirmake(1)

The mbox stays as it is: remove it when you have seen the messages.  A message's name is made of its place and its
content, so that a repetition copies nothing twice.  STEPS is done for each message; what is in new/ or cur/ is whole.
"""

import calendar
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, Final

from qm.disk import mbox
from qm.disk.maildir import host, sync_directory
from qm.disk.message import write_all
from qm.errors import OK, Permanent, Temporary
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import mboxsplit
from qm.wire.multiline import WireSize

_WRITE: Final = 262144  # bytes that are gathered for one write


class Copy:
    """One message on its way; the current directory is the Maildir."""

    def __init__(self, number: int, from_line: bytes, pieces: Iterator[bytes], known: set[bytes]) -> None:
        """*known* are the names, up to the first comma, of what is in the Maildir."""
        self.number = number
        self.born_s = _born_s(from_line)
        self.pieces = pieces
        self.known = known
        self.tmp = b"tmp/%d.M%dP%d.%s" % (self.born_s, number, os.getpid(), host())
        self.fd = -1
        self.target = b""  # empty: it is there already


def _born_s(from_line: bytes) -> int:
    """What the From_ line says of the time; 0 if it says nothing that can be read."""
    words = from_line.split()[-5:]
    try:
        return max(0, calendar.timegm(time.strptime(b" ".join(words).decode("ascii"), "%a %b %d %H:%M:%S %Y")))
    except ValueError:
        return 0


def create(copy: Copy) -> None:
    with suppress(FileNotFoundError):
        os.unlink(copy.tmp)  # its writer had our pid, and so has died
    copy.fd = os.open(copy.tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write(copy: Copy) -> None:
    size, crc, wire, head, held = 0, 0, WireSize(), b"", bytearray()
    for piece in copy.pieces:
        head += piece[: mboxsplit.HEADER_MAX - len(head)]
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        wire.feed(piece)
        held += piece
        if len(held) >= _WRITE:
            write_all(copy.fd, bytes(held))
            held.clear()
    write_all(copy.fd, bytes(held))
    seen, flags = mboxsplit.flags(head)
    unique = b"%d.M%dC%08x.%s" % (copy.born_s, copy.number, crc, host())
    if unique not in copy.known:
        name = b"%s,S=%d,W=%d" % (unique, size, wire.total)
        copy.target = b"cur/%s:2,%s" % (name, flags) if seen else b"new/" + name


def sync(copy: Copy) -> None:
    if copy.target:
        os.utime(copy.fd, (copy.born_s, copy.born_s))
        os.fsync(copy.fd)


def close(copy: Copy) -> None:
    fd, copy.fd = copy.fd, -1
    os.close(fd)


def link(copy: Copy) -> None:
    if copy.target:
        os.link(copy.tmp, copy.target)


def unlink(copy: Copy) -> None:
    os.unlink(copy.tmp)


STEPS: Final[tuple[Callable[[Copy], None], ...]] = (create, write, sync, close, link, unlink)


def _known() -> set[bytes]:
    return {name.partition(b",")[0] for folder in (b"new", b"cur") for name in os.listdir(folder)}


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(mboxsplit.LINE_MAX):
        yield line


def _messages(file: BinaryIO) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """From_ lines, each with the pieces of its message; whoever takes one reads it to its end before the next."""
    events = mboxsplit.split(_lines(file))
    from_line = next(events, (True, b""))[1]

    def pieces() -> Iterator[bytes]:
        nonlocal from_line
        from_line = b""
        for begins, piece in events:
            if begins:
                from_line = piece
                return
            yield piece

    while from_line:
        yield from_line, pieces()


def copy_one(copy: Copy) -> None:
    """Raises OSError; then nothing of it is left, but for what a failing disk refuses to remove."""
    try:
        for step in STEPS:
            step(copy)
    except BaseException:
        if copy.fd >= 0:
            with suppress(OSError):
                os.close(copy.fd)
        with suppress(OSError):
            os.unlink(copy.tmp)
        raise


def copy_all(file: BinaryIO) -> None:
    """Raises OSError, NoMbox."""
    known = _known()
    for number, (from_line, pieces) in enumerate(_messages(file), 1):
        copy_one(Copy(number, from_line, pieces, known))
    for folder in (b"new", b"cur"):
        sync_directory(folder)


def _open(path: bytes) -> BinaryIO:
    try:
        file = open(path, "rb")  # noqa: SIM115  the caller closes it
    except OSError as error:
        raise Temporary("cannot read the mbox", detail=f"{os.fsdecode(path)}: {error.strerror}") from error
    mbox.check_regular(file.fileno(), path)
    if not mbox.lock(file.fileno(), path):
        raise Temporary("the mbox cannot be locked", detail=os.fsdecode(path))
    return file


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 3:
        raise Usage("usage: mbox2maildir mbox maildir")
    with _open(argv[1]) as file:
        try:
            os.chdir(argv[2])
            copy_all(file)
        except mboxsplit.NoMbox as error:
            raise Permanent("that is no mbox", detail=f"{os.fsdecode(argv[1])}: {error}") from error
        except OSError as error:
            raise Temporary("cannot write the Maildir", detail=f"{os.fsdecode(argv[2])}: {error.strerror}") from error
    return OK
