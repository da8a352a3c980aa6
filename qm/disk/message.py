"""A message on a descriptor that others read too: every read says where, so that no offset is shared."""

import os
from collections.abc import Iterator
from typing import Final

from qm.errors import Temporary

_FIRST: Final = 65536  # bytes; most messages are smaller, and then are read by one call
_CHUNK: Final = 262144  # bytes held at a time of one that is not


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*; raises OSError."""
    while data and (written := os.write(fd, data)) < len(data):
        data = data[written:]  # the disk is nearly full, and will say so next time


class Message:
    """The message on *fd*, which stays open and its owner's; raises Temporary here and below if it cannot be read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.head = self._read(0, _FIRST)  # all of it, or the beginning

    def _read(self, offset: int, most: int) -> bytes:
        try:
            return os.pread(self.fd, most, offset)
        except OSError as error:
            raise Temporary("Unable to read the message.", detail=str(error.strerror)) from error

    def chunks(self, before: bytes = b"") -> Iterator[bytes]:
        """*before* and the whole message, from its beginning, in bounded pieces; only the first may be empty."""
        chunk, offset, most = self.head, 0, _FIRST
        yield before + chunk
        while len(chunk) == most:
            offset += most
            most = _CHUNK
            chunk = self._read(offset, most)
            if chunk:
                yield chunk

    def reopen(self) -> int:
        """A descriptor at offset 0 for another program to read.

        Its offset is its own, unless the file may not be opened again, being somebody else's: then it is that of *fd*,
        which send gives to one delivery only.
        """
        try:
            return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return self._rewound()

    def _rewound(self) -> int:
        try:
            os.lseek(self.fd, 0, os.SEEK_SET)
            return os.dup(self.fd)
        except OSError as error:
            raise Temporary("Unable to read the message.", detail=str(error.strerror)) from error
