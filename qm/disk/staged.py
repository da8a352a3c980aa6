"""queue/import: messages that `qm import` has read out of another system's queue, and not let go yet.

Nobody works on them, and the sweep does not look there.  A message is let go by a rename, once `imported` has its ID,
durably: so what the file names is let go or waits here, and what it does not name has never been let go.  `settle` is
what a new run does first with what an interrupted one has left.

    qmailq    STAGE: as in qm.disk.accept up to its close; into_import, sync_import     not known: removed by `settle`
    root      a line of `imported`, fsync                                               known: let go by `settle`
    qmailq    RELEASE: out_of_import, sync_target, sync_import, poke                    send has it
"""

import os
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from qm.disk import accept, held, queue, queuefile
from qm.disk.accept import Entry
from qm.disk.queuefile import Corrupt
from qm.disk.regular import open_regular
from qm.wire import queueid

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = b"import"  # no ID, so send looks into new/: who was killed may not have told it
_PLACES: Final = (queue.NEW, queue.CUR, queue.STATE, queue.HELD)


def is_queued(name: bytes) -> bool:
    """Whether the queue has *name* already, by whatever way."""
    return any(os.path.lexists(os.path.join(os.fsencode(place), name)) for place in _PLACES)


class Way(NamedTuple):
    """A message on its way out of the stage."""

    name: bytes
    source: int  # directories
    target: str


def out_of_import(way: Way) -> None:
    os.rename(way.name, os.path.join(os.fsencode(way.target), way.name), src_dir_fd=way.source)


def sync_target(way: Way) -> None:
    queue.sync_directory(way.target)


def sync_import(way: Way) -> None:
    os.fsync(way.source)


def poke(way: Way) -> None:
    if way.target == queue.NEW:
        held.poke(way.name)


RELEASE: Final[tuple[Callable[[Way], None], ...]] = (out_of_import, sync_target, sync_import, poke)


class Stage:
    """The queue's owner's hold on it."""

    def __init__(self) -> None:
        """Raises OSError, Temporary."""
        queue.make_directory(queue.IMPORT)
        queue.sync_directory(queue.QUEUE)
        self._fd = os.open(queue.IMPORT, _DIRECTORY)
        self.steps: tuple[accept.Step, ...] = (*_BEFORE, self._into_import, self._sync_import)

    def _into_import(self, entry: Entry) -> None:
        os.rename(entry.temporary, entry.name, src_dir_fd=entry.store.tmp, dst_dir_fd=self._fd)
        entry.target, entry.in_tmp, entry.in_target = self._fd, False, True

    def _sync_import(self, entry: Entry) -> None:
        os.fsync(self._fd)

    def release(self, name: bytes) -> None:
        """Let *name* go, to send, or to held/ if its envelope says so; what is not here has gone.  Raises OSError."""
        try:
            fd = open_regular(os.path.join(os.fsencode(queue.IMPORT), name))
        except FileNotFoundError:
            return
        try:
            target = queue.HELD if queuefile.read(fd).envelope.held else queue.NEW
        except Corrupt:
            target = queue.NEW  # send puts it aside
        finally:
            os.close(fd)
        for step in RELEASE:
            step(Way(name, self._fd, target))

    def settle(self, known: Collection[bytes]) -> int:
        """Let go what is *known*, how many that were, and remove the rest; raises OSError."""
        count = 0
        for name in os.listdir(os.fsencode(queue.IMPORT)):
            if name in known and queueid.valid(name):
                self.release(name)
                count += 1
            else:
                os.unlink(name, dir_fd=self._fd)
        os.fsync(self._fd)
        held.poke(_LOOK)
        return count


_BEFORE: Final = accept.STEPS[: accept.STEPS.index(accept.publish)]
