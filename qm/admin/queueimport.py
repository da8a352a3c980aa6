"""Taking messages out of another system's queue: root opens the files, a child that is the queue's owner reads them.

So no byte of a message is parsed by root.  A message is written to queue/import first, then its ID to `imported`, and
only then it is let go: so a second run repeats nothing that the first has done, whenever that was killed and whatever
send has delivered since (qm.disk.staged).  The source is only read.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from qm.admin.findings import Finding
from qm.admin.taker import RELEASE, Taker
from qm.disk import queue
from qm.disk.accept import NotQueued
from qm.errors import QmError, Temporary
from qm.unix import fds, log, privs
from qm.unix.program import unforeseen
from qm.wire.record import Malformed, pack, unpack
from qm.wire.route import Rules

MEMORY: Final = "imported"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Source(NamedTuple):
    """A message over there."""

    kind: bytes  # postfix, postfix-hold, postfix-maildrop, qmail (preprocessed), or qmail-todo
    name: str  # what it is called there
    paths: tuple[str, ...]  # postfix: the file, and that in bounce/; qmail: mess, info, local, remote; or mess, todo


class _Child:
    """Started with the home as current directory."""

    def __init__(self, rules: Rules, known: set[bytes], *, dry_run: bool) -> None:
        self.channel, theirs = fds.pair()
        self._pid = os.fork()
        if self._pid == 0:
            code = 111
            try:
                self.channel.close()
                os.umask(queue.UMASK)
                privs.become(privs.role("qmailq"))
                if not dry_run:
                    queue.make()
                Taker(rules, known, dry_run=dry_run).serve(theirs)
                code = 0
            except (QmError, NotQueued, OSError) as error:
                log.fatal(b"qm", str(error))
            except Exception as error:
                unforeseen(b"qm", error)
            finally:
                os._exit(code)
        theirs.close()

    def take(self, source: Source, descriptors: list[int]) -> tuple[bytes, bytes, bytes]:
        return self._ask(source.kind, os.fsencode(source.name), descriptors)

    def release(self, message_id: bytes = b"") -> str:
        """Let a message go, or what an earlier run has left, and how many messages that were; raises Temporary."""
        letter, text, _ = self._ask(RELEASE, message_id, [])
        if letter != b"K":
            raise Temporary("what has been taken waits for the next run", detail=os.fsdecode(text))
        return text.decode("ascii")

    def _ask(self, kind: bytes, name: bytes, descriptors: list[int]) -> tuple[bytes, bytes, bytes]:
        try:
            fds.send_record(self.channel, pack(kind, name), descriptors)
            record, _ = fds.recv_record(self.channel)
        except OSError as error:
            raise self._gone() from error
        if not record:
            raise self._gone()
        letter, text, message_id = unpack(record, 3)
        return letter, text, message_id

    def _gone(self) -> Temporary:
        return Temporary("the queue cannot be written", detail="its owner's process has ended; see above")

    def close(self) -> None:
        self.channel.close()
        os.waitpid(self._pid, 0)


class _Memory:
    """`imported`, which has a line for each message that is let go: its ID, system and name."""

    def __init__(self, *, dry_run: bool) -> None:
        flags = os.O_RDONLY if dry_run else os.O_RDWR | os.O_APPEND | os.O_CREAT
        self.known: set[bytes] = set()
        self._fd = -1
        self._gap = b""
        try:
            self._fd = os.open(MEMORY, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if not dry_run:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(self._fd, "rb", closefd=False) as file:
                lines = file.read().splitlines(keepends=True)
            if not dry_run:  # what is believed here must be true after a crash, too
                os.fsync(self._fd)
                queue.sync_directory(".")
            self.known = {line.partition(b" ")[0] for line in lines}
            if lines and not lines[-1].endswith(b"\n"):
                self._gap = b"\n"  # a crash has cut the last line short
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            raise Temporary("another import is at work") from error
        except OSError as error:
            raise Temporary("cannot write down what is taken", detail=f"{MEMORY}: {error.strerror}") from error

    def add(self, source: Source, message_id: bytes) -> None:
        """Raises Temporary; the message must not be let go then."""
        line = self._gap + b"%b %b %b\n" % (message_id, source.kind, os.fsencode(source.name))
        size = -1
        try:
            size = os.fstat(self._fd).st_size
            if os.write(self._fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                if size >= 0:
                    os.ftruncate(self._fd, size)
            raise Temporary("cannot write down what has been taken", detail=f"{MEMORY}: {error.strerror}") from error
        self._gap = b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _opened(source: Source) -> list[int]:
    """Descriptors of the source's files, those that are missing as empty ones; raises OSError, Malformed."""
    opened: list[int] = []
    try:
        for number, path in enumerate(source.paths):
            try:
                opened.append(os.open(path, _OPEN))
            except FileNotFoundError:
                if number < 2:  # message and sender must be there; local/ and remote/ only where there is need
                    raise
                opened.append(os.memfd_create("empty"))
            if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
                raise Malformed("not a regular file")
        return opened
    except BaseException:
        fds.close_all(opened)
        raise


_SAID: Final = {b"K": "", b"A": "; it waits in the queue already", b"P": "", b"N": "; left out"}


def carry(sources: Iterable[Source], rules: Rules, *, dry_run: bool) -> Iterator[Finding]:
    """Queue each message, or with *dry_run* only look; the current directory is the home.  Raises Temporary."""
    memory = _Memory(dry_run=dry_run)
    child = _Child(rules, memory.known, dry_run=dry_run)
    try:
        if not dry_run and (count := child.release()) != "0":
            yield Finding(queue.IMPORT, f"{count} messages that an interrupted import has left are let go", True)
        for source in sources:
            yield _carry_one(source, memory, child, dry_run=dry_run)
    finally:
        child.close()
        memory.close()


def _carry_one(source: Source, memory: _Memory, child: _Child, *, dry_run: bool) -> Finding:
    where = source.paths[0]
    try:
        opened = _opened(source)
    except (OSError, Malformed) as error:
        return Finding(where, f"message: {error}", False)
    try:
        letter, text, message_id = child.take(source, opened)
    finally:
        fds.close_all(opened)
    if letter not in _SAID:
        return Finding(where, f"message: {os.fsdecode(text)}", False)
    if not dry_run and letter in b"KA":
        memory.add(source, message_id)
        child.release(message_id)
    named = "" if letter == b"N" else f", as {message_id.decode('ascii')}"
    return Finding(where, f"message: {os.fsdecode(text)}{named}{_SAID[letter]}", True)
