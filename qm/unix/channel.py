"""The network as a pair of blocking descriptors whose every wait has a time-out.

On a socket the kernel keeps the time (SO_RCVTIMEO, SO_SNDTIMEO), so a read is one system call; other descriptors are
polled first.
"""

import os
import select
import socket
import stat
import struct
import time
from typing import Final

READ_MAX: Final = 65536  # bytes taken at once
LINGER_S: Final = 2.0  # how long and ...
LINGER_MAX: Final = 1 << 20  # ... how many bytes we listen to a peer that is still talking when we leave


class Gone(Exception):
    """The peer has closed or reset the connection."""


class TimedOut(Gone):
    """The peer kept us waiting longer than it may."""


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


class Channel:
    """Read and write with one idle time-out, in seconds."""

    def __init__(self, fd_in: int, fd_out: int, timeout_s: float) -> None:
        self._in = fd_in
        self._out = fd_out
        self._socket = _is_socket(fd_in) and _is_socket(fd_out)
        self.set_timeout(timeout_s)

    def set_timeout(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s = max(timeout_s, 1e-6)  # to the kernel, 0 is for ever
        if self._socket:
            value = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
            for fd, option in ((self._in, socket.SO_RCVTIMEO), (self._out, socket.SO_SNDTIMEO)):
                _set_option(fd, option, value)

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(self._timeout_s * 1000):
            raise TimedOut

    def read(self, most: int = READ_MAX) -> bytes:
        """What has come, at most *most* bytes; b"" at the end.  Raises TimedOut, Gone."""
        if not self._socket:
            self._wait(self._in, select.POLLIN)
        try:
            return os.read(self._in, most)
        except BlockingIOError as error:
            raise TimedOut from error
        except OSError as error:
            raise Gone(error.strerror) from error

    def write(self, data: bytes | memoryview) -> None:
        """Write all of *data*; raises TimedOut, Gone."""
        while data:
            if not self._socket:
                self._wait(self._out, select.POLLOUT)
            try:
                sent = os.write(self._out, data if self._socket else data[: select.PIPE_BUF])
            except BlockingIOError as error:
                raise TimedOut from error
            except OSError as error:
                raise Gone(error.strerror) from error
            if sent == len(data):
                return
            data = memoryview(data)[sent:]

    def linger(self, delay_s: float) -> None:
        """Let the peer wait for its answer; raises Gone if it leaves meanwhile."""
        poll = select.poll()
        poll.register(self._in, select.POLLRDHUP)
        if poll.poll(delay_s * 1000):
            raise Gone("left while it had to wait")

    def hang_up(self) -> None:
        """Before a close: see that our last reply arrives.

        Closing a socket with unread data resets the connection, and the peer may lose what we said last.  So if it has
        sent what nobody will read, end our side first and take the rest, within bounds.
        """
        if not self._socket:
            return
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self._in)
        try:
            if peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                peer.shutdown(socket.SHUT_WR)
                _take_the_rest(self._in)
        except OSError:
            pass  # nothing unread, or nobody there
        finally:
            peer.detach()


def _take_the_rest(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline_s = time.monotonic() + LINGER_S
    left = LINGER_MAX
    while left > 0 and poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        taken = len(os.read(fd, READ_MAX))
        if not taken:
            return
        left -= taken


def _set_option(fd: int, option: int, value: bytes) -> None:
    # family and kind are not looked at here; named, they are not asked of the kernel
    borrowed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        borrowed.setsockopt(socket.SOL_SOCKET, option, value)
    finally:
        borrowed.detach()
