"""What a delivering process gets of a message: its bytes, read-only, at offset 0; never the envelope.

A small message is copied at once to a sealed memfd.  A large one goes to an unlinked file in queue/tmp, a piece in
each turn of the loop, so that 50 MiB hold up nobody.  The CRC is checked while copying: a damaged message is never
delivered.
"""

import fcntl
import os
import zlib
from typing import Final

from qm.disk import queue
from qm.disk.queuefile import Corrupt, QueueFile, read_message

SMALL: Final = 262144  # bytes that are copied in one go
PIECE: Final = 1048576  # bytes of a large message that are copied in one turn
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Handout:
    """A copy in the making, whole when `step` has returned True."""

    def __init__(self, source: int, file: QueueFile) -> None:
        """Copy the message of queue file *source*, which stays the caller's; raises OSError."""
        self._source = source
        self._file = file
        self._crc = 0
        self._at = 0
        self.is_large = file.message_length > SMALL
        if self.is_large:
            self.fd = os.open(queue.TMP, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o444)  # its deliverers open it anew
        else:
            self.fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def step(self) -> bool:
        """Copy the next piece; True when all is there.  Raises Corrupt, OSError."""
        piece = read_message(self._source, self._file, self._at, PIECE)
        self._crc = zlib.crc32(piece, self._crc)
        done = 0
        while done < len(piece):  # pwrite leaves the offset at 0
            done += os.pwrite(self.fd, memoryview(piece)[done:] if done else piece, self._at + done)
        self._at += len(piece)
        if self._at < self._file.message_length:
            return False
        if self._crc != self._file.message_crc:
            raise Corrupt("message does not match its sum")
        self._finish()
        return True

    def _finish(self) -> None:
        if self.is_large:
            writer = self.fd
            self.fd = self.descriptor()
            os.close(writer)
        else:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def descriptor(self) -> int:
        """A descriptor with an offset of its own, 0, for one of several deliveries; close it once it is sent."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)


def whole(source: int, file: QueueFile) -> Handout:
    """A small message's handout, made at once; raises Corrupt, OSError, and then leaves nothing."""
    made = Handout(source, file)
    try:
        while not made.step():
            pass
    except BaseException:
        made.close()
        raise
    return made
