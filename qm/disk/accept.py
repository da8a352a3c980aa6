"""Accept: how a message comes into the queue, step by step (docs/INTERNALS.md 1.4.1).

STEPS is run in order, and tests cut it anywhere.  Until `publish` the message is a file in tmp/ that the sweep
removes; once `sync_new` has come back it is durable, and only then does anybody hear that it was accepted.  A failure
at any step leaves nothing: in particular a failed fsync is never repeated, since the kernel may have thrown the pages
away and would then call the second one a success.

An ID is unique by construction, so `rename` can meet no other file.  A derived ID (a bounce's) may come again after a
crash: it is linked to its name, which refuses an existing one, and finding it queued already is success.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from qm.disk import queue, queuefile
from qm.disk.trigger import Poker
from qm.wire import envelope as wire_envelope
from qm.wire import queuecode, queueid
from qm.wire.envelope import Envelope

Piece = bytes | memoryview
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o640  # send reads, by the group


class NotQueued(Exception):
    """The queue has not got the message, and nothing of it is left there."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(detail or queuecode.text(code))
        self.code = code
        self.detail = detail  # for the log, when the administrator should know


class Accepted(NamedTuple):
    name: bytes  # the ID
    already: bool = False  # it had been queued before


class Draft(NamedTuple):
    """A message on its way in: where its parts come from."""

    received: Callable[[bytes, int], bytes]  # our Received field, given the ID and the birth in ns
    message: tuple[Piece, ...] | Iterator[Piece]  # a tuple when it is in hand; a piece of an iterator is used at once
    envelope: Callable[[], Envelope]  # asked for after the message's end
    uid: int  # of whoever hands it in
    pid: int
    name: bytes = b""  # the derived ID that it must have; such a one is never held
    born_ns: int = 0  # of a message that waited in another queue before, when that was; 0: it begins here


class Store:
    """One process's hold on the queue, kept from message to message.  Not for two threads."""

    def __init__(self) -> None:
        """Raises NotQueued if the queue is not there."""
        self._pid = os.getpid()
        self._last_ns = 0
        fds: list[int] = []
        try:
            for path in (queue.TMP, queue.NEW):
                fds.append(os.open(path, _DIRECTORY))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise NotQueued(queuecode.QUEUE, f"{path}: {error.strerror}") from error
        self.tmp, self.new = fds
        self._held = -1
        self.trigger = Poker()

    @property
    def held(self) -> int:
        """The directory of held messages, which few processes need; raises OSError."""
        if self._held < 0:
            self._held = os.open(queue.HELD, _DIRECTORY)
        return self._held

    def birth_ns(self) -> int:
        """Now, but never the same twice: a message's birth makes its ID."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def fresh_name(self, born_ns: int) -> bytes:
        return queueid.make(born_ns, self._pid)

    def close(self) -> None:
        os.close(self.tmp)
        os.close(self.new)
        if self._held >= 0:
            os.close(self._held)
        self.trigger.close()


class Entry:
    """What the steps know of one message."""

    __slots__ = (
        "already", "born_ns", "crc", "draft", "fd", "in_target", "in_tmp", "is_held", "length", "name", "store",
        "target", "temporary",
    )  # fmt: skip

    def __init__(self, store: Store, draft: Draft) -> None:
        self.store = store
        self.draft = draft
        self.born_ns = store.birth_ns()
        self.temporary = store.fresh_name(self.born_ns)
        self.name = draft.name or self.temporary
        self.fd = -1
        self.length = self.crc = 0
        self.in_tmp = self.in_target = False  # where a file of ours may be
        self.target = store.new
        self.is_held = False
        self.already = False

    def counted(self, piece: Piece) -> Piece:
        self.length += len(piece)
        self.crc = zlib.crc32(piece, self.crc)
        return piece


def _write_all(fd: int, pieces: Sequence[Piece]) -> None:
    done = os.writev(fd, pieces)
    if done < sum(map(len, pieces)):
        rest = memoryview(b"".join(pieces))[done:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def create(entry: Entry) -> None:
    entry.fd = os.open(entry.temporary, _CREATE, _MODE, dir_fd=entry.store.tmp)
    entry.in_tmp = True


def write(entry: Entry) -> None:
    """Message, envelope, footer; in one system call when the message is in hand."""
    draft = entry.draft
    pieces = [entry.counted(draft.received(entry.name, entry.born_ns))]
    if isinstance(draft.message, tuple):
        pieces += map(entry.counted, draft.message)
    else:
        for piece in draft.message:
            _write_all(entry.fd, [*pieces, entry.counted(piece)])
            pieces.clear()
    born_ns = draft.born_ns or entry.born_ns
    stamped = draft.envelope()._replace(uid=draft.uid, pid=draft.pid, born_ns=born_ns)
    if stamped.held and not draft.name:
        entry.is_held, entry.target = True, entry.store.held
    text = wire_envelope.encode(stamped)
    _write_all(entry.fd, [*pieces, text, queuefile.footer(entry.length, entry.crc, len(text), zlib.crc32(text))])


def sync(entry: Entry) -> None:
    os.fsync(entry.fd)


def close(entry: Entry) -> None:
    fd, entry.fd = entry.fd, -1
    os.close(fd)


def publish(entry: Entry) -> None:
    if entry.draft.name:
        _publish_derived(entry)
        return
    os.rename(entry.temporary, entry.name, src_dir_fd=entry.store.tmp, dst_dir_fd=entry.target)
    entry.in_tmp, entry.in_target = False, True


def _publish_derived(entry: Entry) -> None:
    known = (os.path.join(os.fsencode(directory), entry.name) for directory in (queue.CUR, queue.STATE))
    entry.already = any(map(os.path.lexists, known))
    if not entry.already:
        try:
            os.link(entry.temporary, entry.name, src_dir_fd=entry.store.tmp, dst_dir_fd=entry.store.new)
            entry.in_target = True
        except FileExistsError:
            entry.already = True  # and made durable below, as if it were ours
    os.unlink(entry.temporary, dir_fd=entry.store.tmp)
    entry.in_tmp = False


def sync_new(entry: Entry) -> None:
    os.fsync(entry.target)
    if entry.already:  # send may have moved it before its name in new/ was durable
        queue.sync_directory(queue.CUR)


def poke(entry: Entry) -> None:
    if not entry.is_held:
        entry.store.trigger.poke(entry.name)


Step = Callable[[Entry], None]
STEPS: Final[tuple[Step, ...]] = (create, write, sync, close, publish, sync_new, poke)
_CODES: Final[dict[Step, int]] = {create: queuecode.TMP, publish: queuecode.NEW}  # else WRITE


def accept(store: Store, draft: Draft, steps: Sequence[Step] = STEPS) -> Accepted:
    """Put a message into the queue, durably; raises NotQueued, or what *draft* raises, with nothing left behind."""
    entry = Entry(store, draft)
    step = steps[0]
    try:
        for step in steps:
            step(entry)
    except OSError as error:
        _abandon(entry)
        code = _CODES.get(step, queuecode.WRITE)
        raise NotQueued(code, f"{entry.name.decode()}: {step.__name__}: {error.strerror}") from error
    except BaseException:
        _abandon(entry)
        raise
    return Accepted(entry.name, entry.already)


def _abandon(entry: Entry) -> None:
    """Leave nothing; what cannot be unlinked the sweep removes, or send has it already and delivers it."""
    if entry.fd >= 0:
        try:
            os.close(entry.fd)
        except OSError:
            pass  # of a file that goes anyway
    for there, name, directory in (
        (entry.in_target, entry.name, entry.target),
        (entry.in_tmp, entry.temporary, entry.store.tmp),
    ):
        if there:
            try:
                os.unlink(name, dir_fd=directory)
            except OSError:
                pass
