"""Descriptors and datagrams: sending records with descriptors, moving descriptors to fixed numbers."""

import array
import fcntl
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from qm.wire.record import RECORD_MAX, Malformed

FDS_MAX: Final = 4  # descriptors with one record
_ANCILLARY: Final = socket.CMSG_SPACE(FDS_MAX * 4)
# as numbers: combining the enums costs as much as the system call
_CUT: Final = int(socket.MSG_TRUNC) | int(socket.MSG_CTRUNC)
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_NOSIGNAL: Final = int(socket.MSG_NOSIGNAL)
_RIGHTS: Final = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a SOCK_SEQPACKET channel, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_record(channel: socket.socket, record: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one datagram; raises OSError, BlockingIOError when a non-blocking channel is full."""
    if descriptors:
        rights = array.array("i", descriptors)
        channel.sendmsg([record], [(*_RIGHTS, rights)], _NOSIGNAL)
    else:
        channel.send(record, _NOSIGNAL)


def recv_record(channel: socket.socket, most: int = RECORD_MAX) -> tuple[bytes, list[int]]:
    """Receive one datagram and its descriptors (close-on-exec); b"" means that the peer has closed.

    Raises Malformed, with every descriptor closed, for a datagram over *most* bytes or with too many descriptors.
    """
    record, ancillary, flags, _ = channel.recvmsg(most, _ANCILLARY, _CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            rights = array.array("i")
            rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
            descriptors.extend(rights)
    if flags & _CUT:
        close_all(descriptors)
        raise Malformed("datagram too large")
    return record, descriptors


def close_all(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def close_from(lowest: int, keep: Iterable[int] = ()) -> None:
    """Close every descriptor from *lowest* up, but those of *keep*."""
    for fd in sorted(set(keep)):
        if fd >= lowest:
            os.closerange(lowest, fd)
            lowest = fd + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def place(moves: dict[int, int]) -> None:
    """Make each descriptor *moves[target]* appear as *target* too, inheritable, whatever overlaps."""
    above = max(moves) + 1
    copies = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for target, source in moves.items()}
    for target, copy in copies.items():
        os.dup2(copy, target, inheritable=True)
    close_all(copies.values())


def fill_standard() -> None:
    """Open /dev/null as each of 0, 1 and 2 that is closed, so that nothing else of ours gets such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def nonblocking(fd: int) -> None:
    os.set_blocking(fd, False)
