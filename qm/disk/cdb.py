"""Constant databases: read by key while somebody replaces the file, written as a whole (qmail.md 2.6).

The reader here checks what cdblib's trusts: there a table without an empty slot loops for ever, and a record past the
end is cut short.  It reads with pread and keeps nothing but the header, so neither a big file nor one that is cut off
under us does harm.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import cdblib

from qm.disk import atomic
from qm.errors import Temporary

_HEADER: Final = struct.Struct("<512L")
_PAIR: Final = struct.Struct("<LL")
_Stamp = tuple[int, ...]


class BadCdb(Temporary):
    """A cdb that cannot be read; *detail* names it and says what to do."""


class Cdb:
    """The cdb at *path*, which may appear, change and vanish; call `refresh` before a run of `lookup`.

    A relative *path* starts from the directory *dir_fd*, if that is given.
    """

    def __init__(self, path: str, dir_fd: int | None = None) -> None:
        self.path = path
        self._dir_fd = dir_fd
        self._fd = -1
        self._size = 0
        self._header: tuple[int, ...] = ()
        self._stamp: _Stamp | None = None

    @property
    def present(self) -> bool:
        """Whether there was a file at the last `refresh`."""
        return self._fd >= 0

    def refresh(self) -> bool:
        """Open the file if it is a new one; whether anything has changed.  Raises BadCdb."""
        try:
            status = os.stat(self.path, dir_fd=self._dir_fd)
        except FileNotFoundError:
            changed = self.present
            self.close()
            return changed
        except OSError as error:
            raise self._bad(error.strerror) from error
        if _stamp(status) == self._stamp:
            return False
        self.close()
        self._open()
        return True

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._dir_fd)
            status = os.fstat(self._fd)
            self._size = status.st_size
            self._header = _HEADER.unpack(self._read(0, _HEADER.size))
            if any(position + slots * _PAIR.size > self._size for position, slots in self._tables()):
                raise self._bad("it is cut off")
        except OSError as error:
            self.close()
            raise self._bad(error.strerror) from error
        except BadCdb:
            self.close()
            raise
        self._stamp = _stamp(status)

    def _tables(self) -> Iterable[tuple[int, int]]:
        return zip(self._header[::2], self._header[1::2], strict=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._stamp = None

    def _bad(self, why: str | None) -> BadCdb:
        return BadCdb("cannot read a database", detail=f"{self.path}: {why}; make it again from its text")

    def _read(self, position: int, length: int) -> bytes:
        if position + length > self._size:
            raise self._bad("it is cut off")
        try:
            data = os.pread(self._fd, length, position)
        except OSError as error:
            raise self._bad(error.strerror) from error
        if len(data) != length:
            raise self._bad("it is cut off")
        return data

    def lookup(self, key: bytes) -> bytes | None:
        """The first value of *key*; None if there is none, or no file.  Raises BadCdb."""
        if self._fd < 0:
            return None
        hashed = cdblib.djb_hash(key) & 0xFFFFFFFF
        position, slots = self._header[hashed % 256 * 2 : hashed % 256 * 2 + 2]
        if not slots:
            return None
        first = (hashed >> 8) % slots
        for probe in range(slots):
            slot = (first + probe) % slots
            found, record = _PAIR.unpack(self._read(position + slot * _PAIR.size, _PAIR.size))
            if not record:
                return None
            if found == hashed:
                value = self._value(record, key)
                if value is not None:
                    return value
        raise self._bad("a table has no empty slot")

    def _value(self, record: int, key: bytes) -> bytes | None:
        """The value at *record* if its key is *key*."""
        key_length, length = _PAIR.unpack(self._read(record, _PAIR.size))
        start = record + _PAIR.size
        if key_length != len(key) or self._read(start, key_length) != key:
            return None
        return self._read(start + key_length, length)


def _stamp(status: os.stat_result) -> _Stamp:
    """What tells a file from every other at its path; the one that we hold open keeps its inode number to itself."""
    return status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def write(path: str, items: Iterable[tuple[bytes, bytes]], *, temporary: str = "", mode: int = 0o644) -> None:
    """Make the cdb *path* of *items*, in their order, as `atomic.replace` does; raises Temporary."""

    def fill(file: BinaryIO) -> None:
        writer = cdblib.Writer(file, strict=True)
        for key, value in items:
            writer.put(key, value)
        try:
            writer.finalize()
        except struct.error as error:
            raise Temporary("cannot write a database", detail=f"{path}: more than 4 GiB") from error

    atomic.replace(path, fill, mode=mode, temporary=temporary)


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the whole cdb *data*, in their order; raises BadCdb."""
    if len(data) < _HEADER.size:
        raise BadCdb("cannot read a database", detail="it is cut off")
    end, position = min(_HEADER.unpack_from(data)[::2]), _HEADER.size
    while position < end:
        if position + _PAIR.size > len(data):
            raise BadCdb("cannot read a database", detail="it is cut off")
        lengths = _PAIR.unpack_from(data, position)
        start = position + _PAIR.size
        position = start + sum(lengths)
        if position > min(end, len(data)):
            raise BadCdb("cannot read a database", detail="a record is longer than the file")
        yield data[start : start + lengths[0]], data[start + lengths[0] : position]
