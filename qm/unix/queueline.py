"""The client's end of a connection to the queue service."""

import socket
import struct
from typing import Final

from qm.wire import door, queuecode
from qm.wire.record import Malformed

_ANSWER_MAX: Final = 4096  # bytes
Part = bytes | bytearray | memoryview
_DEAD: Final = (BrokenPipeError, ConnectionResetError, ConnectionRefusedError)


class Ended(Exception):
    """The service has closed the connection without an answer."""


class Line:
    """Opened when it is needed."""

    def __init__(self, path: str | bytes, timeout_s: float) -> None:
        self._path = path
        self._wait = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        self._channel: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def open(self) -> socket.socket:
        if self._channel is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, self._wait)
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._wait)
                channel.connect(self._path)
            except OSError as error:
                channel.close()
                raise queuecode.failure(queuecode.UNREACHABLE, error.strerror or str(error)) from error
            self._channel = channel
        return self._channel

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def is_alive(self) -> bool:
        """Whether an open connection has not been closed by the service."""
        try:
            return bool(self.open().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self, *parts: Part) -> None:
        """One datagram; raises OSError if it did not go."""
        try:
            self.open().sendmsg(parts, (), socket.MSG_NOSIGNAL)
        except BlockingIOError as error:
            self.close()
            raise queuecode.failure(queuecode.TIMEOUT, "the service does not read") from error

    def first(self, *parts: Part) -> None:
        """A message's first datagram; raises OSError if it did not go.

        A kept connection that has died is opened again: what could not be sent was not taken.
        """
        kept = self.is_open
        try:
            self.send(*parts)
        except _DEAD:
            self.close()
            if not kept:
                raise
            self.send(*parts)

    def answer(self) -> door.Answer:
        """Wait for the answer; raises Ended, and Deferred for none in time or a mangled one."""
        try:
            try:
                datagram = self.open().recv(_ANSWER_MAX)
            except ConnectionResetError:  # it had not read all of ours; what it said first comes next
                datagram = self.open().recv(_ANSWER_MAX)
            if datagram:
                return door.parse_answer(datagram)
        except (OSError, Malformed) as error:
            self.close()
            raise queuecode.failure(queuecode.LOST, f"no answer: {error}") from error
        self.close()
        raise Ended
