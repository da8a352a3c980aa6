"""The trigger: a FIFO on which whoever has put a message into queue/new tells send its ID, a line each.

A line is far below PIPE_BUF, so lines of several writers never mix.  Nobody waits for send: a line that does not fit is
dropped.  So a reader that finds the FIFO half full must look into queue/new itself: names may be missing.
"""

import os
import stat

from qm.disk.queue import TRIGGER


class Poker:
    """The writing end, kept open for as long as there is a reader."""

    def __init__(self, path: str = TRIGGER) -> None:
        self._path = path
        self._fd = -1

    def _open(self) -> bool:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False  # no send (ENXIO), or no trigger: send looks into queue/new when it starts
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            return False
        self._fd = fd
        return True

    def poke(self, name: bytes) -> None:
        """Say that *name* is in queue/new; never fails, since the message is safe without it."""
        for _ in range(2):  # the reader of a kept end may have gone, and the next one may have made a new FIFO
            if self._fd < 0 and not self._open():
                return
            try:
                os.write(self._fd, name + b"\n")
            except BlockingIOError:
                return  # full: send will look into queue/new
            except OSError:
                self.close()
            else:
                return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
