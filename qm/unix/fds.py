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


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a SOCK_SEQPACKET channel, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_record(channel: socket.socket, record: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one datagram; raises OSError, BlockingIOError when a non-blocking channel is full."""
    if descriptors:
        rights = array.array("i", descriptors)
        channel.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)
    else:
        channel.send(record, socket.MSG_NOSIGNAL)


def recv_record(channel: socket.socket, most: int = RECORD_MAX) -> tuple[bytes, list[int]]:
    """Receive one datagram and its descriptors (close-on-exec); b"" means that the peer has closed.

    Raises Malformed, with every descriptor closed, for a datagram over *most* bytes or with too many descriptors.
    """
    record, ancillary, flags, _ = channel.recvmsg(most, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            rights = array.array("i")
            rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
            descriptors.extend(rights)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
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


def nonblocking(fd: int) -> None:
    os.set_blocking(fd, False)
