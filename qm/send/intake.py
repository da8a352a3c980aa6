"""Where send's messages come from: the trigger, new/ and, after a start, cur/.

The trigger names what has come into new/, a line each, so that no directory is read for a message.  A name that is
lost costs nothing: new/ is read at the start and every SCAN_S; a false one costs a failed rename.
"""

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from qm.disk import queue
from qm.send.message import FOUND, FRESH
from qm.unix import log
from qm.unix.loop import Loop
from qm.wire import queueid

NAME: Final = b"qm-send"
SCAN_S: Final = 1500.0  # qmail.md 4.7
RETRY_S: Final = 10.0  # after a scan that failed
READ_MAX: Final = 65536  # bytes at once: what a pipe holds, unless its user has too many of them (pipe(7))
BATCH: Final = 200  # messages of a directory that are looked at in one turn of the loop


class Intake:
    """*arrived* is called with the ID of each message that has been taken from new/ to cur/, and FRESH or FOUND."""

    def __init__(self, loop: Loop, arrived: Callable[[bytes, int], None]) -> None:
        """Raises OSError if the trigger is not there."""
        self._loop = loop
        self._arrived = arrived
        self._rest = b""
        self._told: deque[bytes] = deque()  # names from the trigger that have not been looked at
        # with a write end of our own, so that it has no end of file
        self._fd = os.open(queue.TRIGGER, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._scanning: Iterator[bytes] | None = None
        self._kind = FOUND  # of what the scan that is going on finds
        self._timer = loop.after(0.0, self.scan)
        self._listening = self._stopped = False
        self._troubled = False  # a move has failed: the next look finds what the trigger tells meanwhile
        self._listen(True)

    def _triggered(self) -> None:
        data = os.read(self._fd, READ_MAX)
        names = (self._rest + data).split(b"\n")
        self._rest = names.pop()[-64:]
        self._told.extend(names)
        if len(data) > fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ) // 2:
            self.scan()  # writers never wait: names may not have found room
        self._take_told()

    def _take_told(self) -> None:
        """A batch of what the trigger told; while there is more, nothing is read from it."""
        for _ in range(min(BATCH, len(self._told))):
            if self._troubled:
                self._told.clear()
                break
            name = self._told.popleft()
            if queueid.valid(name):
                self._take(name)
            elif name.strip(b"\0"):
                self.scan()  # somebody pokes by hand
        if self._told:
            self._loop.after(0.0, self._take_told)
        self._listen(not self._told and not self._stopped)

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._listening:
            self._loop.watch(self._fd, self._triggered)
        elif self._listening and not wanted:
            self._loop.unwatch(self._fd)
        self._listening = wanted

    def _take(self, name: bytes) -> None:
        """Move a message to cur/; it is ours from then on.

        The first that cannot be moved ends this look: they all would fail for its reason, and each say so.
        """
        try:
            os.rename(b"queue/new/" + name, b"queue/cur/" + name)
        except FileNotFoundError:
            return  # taken before
        except OSError as error:
            log.alert(NAME, f"cannot move queue/new/{name.decode()} to queue/cur: {error.strerror}; trying again")
            self._look_again()
            return
        self._arrived(name, self._kind if self._scanning is not None else FRESH)

    def _look_again(self) -> None:
        self._troubled = True
        self._scanning = None
        self._timer.cancel()
        self._timer = self._loop.after(RETRY_S, self.scan)

    def scan(self) -> None:
        """Read new/, in batches; again after SCAN_S."""
        if self._scanning is not None:
            return
        self._troubled = False
        self._timer.cancel()
        try:
            self._scanning = iter(sorted(filter(queueid.valid, os.listdir(os.fsencode(queue.NEW)))))
        except OSError as error:
            log.alert(NAME, f"cannot read {queue.NEW}: {error.strerror}")
            self._look_again()
            return
        self._next_batch()

    def _next_batch(self) -> None:
        assert self._scanning is not None
        batch = list(islice(self._scanning, BATCH))
        for name in batch:
            self._take(name)
            if self._troubled:
                return
        if len(batch) == BATCH:
            self._timer = self._loop.after(0.0, self._next_batch)
        else:
            self._scanning = None
            self._kind = FRESH
            self._timer = self._loop.after(SCAN_S, self.scan)

    def stop(self) -> None:
        """Take nothing any more: what comes stays in new/."""
        self._stopped = True
        self._told.clear()
        self._listen(False)
        self._timer.cancel()


def left_over() -> list[bytes]:
    """The IDs of cur/, oldest first: messages of an earlier life of send.  Raises OSError.

    Memory without a message is litter, which `Ledger.finish` may leave behind when it is cut: it is removed here.
    """
    here = set(os.listdir(os.fsencode(queue.CUR)))
    for name in os.listdir(os.fsencode(queue.STATE)):
        if name not in here and queueid.valid(name):
            os.unlink(b"queue/state/" + name)
    return sorted(filter(queueid.valid, here))
