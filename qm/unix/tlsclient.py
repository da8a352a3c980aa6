"""The only client of qm-tlsd: have it do TLS with a peer (docs/INTERNALS.md 1.12).

The network's descriptor is given away, and a plain socket comes back: whoever uses it never sees a key, and may become
another user while the session goes on.
"""

import os
import socket
import struct
import time
from typing import Final

from qm.errors import Temporary
from qm.unix import fds
from qm.wire.record import Malformed
from qm.wire.tlsjob import (
    FRAME,
    TIMEOUT_MAX_MS,
    YES,
    AskReady,
    Facts,
    Serve,
    frame_size,
    pack_question,
    unpack_answer,
)

__all__ = ["SOCKET", "Busy", "Facts", "Failed", "TlsClient"]

SOCKET: Final = "tls/socket"
ANSWER_S: Final = 5.0  # qm-tlsd's own time; it only looks at files and forks
GRACE_S: Final = 5.0  # ... and, in a handshake, beyond the limit of that
FRESH_S: Final = 1.0  # what is known of it is believed so long


class Busy(Temporary):
    """There is no TLS now, and nothing was said to the peer."""


class Failed(Exception):
    """The handshake has failed, and the peer has been told: end."""


class _Dead(Exception):
    """The connection that we had kept is no more; nothing was answered on it."""


class TlsClient:
    """Ask qm-tlsd; keeps one connection, made when it is first needed, so that it may be made before a fork.

    *path* is relative to the home, which must be the current directory whenever a connection is made.
    """

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._channel: socket.socket | None = None
        self._ready = False
        self._known_until_s = 0.0

    def ready(self) -> bool:
        """Whether TLS can be offered: qm-tlsd runs, and has a certificate.  Known for FRESH_S."""
        now_s = time.monotonic()
        if now_s >= self._known_until_s:
            try:
                self._ready = self._told(AskReady(), (), answered=True) == YES
            except Busy:
                self._ready = False
            self._known_until_s = now_s + FRESH_S
        return self._ready

    def serve(self, network: int, say: bytes, protocol: bytes, timeout_s: float) -> tuple[socket.socket, Facts]:
        """Give the descriptor *network* away, to be greeted with *say* in clear and then encrypted for *protocol*.

        The plain socket that takes its place, and what was agreed; *network* stays open here, to be closed or replaced.
        *protocol* is an ALPN name, smtp or pop3.  Raises Busy, Failed.
        """
        question = Serve(say, protocol, min(int(timeout_s * 1000), TIMEOUT_MAX_MS))
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._told(question, (network, theirs.fileno()), answered=False)
            _set_timeout(ours, socket.SO_RCVTIMEO, timeout_s + GRACE_S)
            facts = _answer(ours)
            _set_timeout(ours, socket.SO_RCVTIMEO, 0.0)
        except BaseException:
            ours.close()
            raise
        return ours, facts

    def encrypt(self, say: bytes, protocol: bytes, timeout_s: float) -> Facts:
        """As `serve`, for the network on descriptors 0 and 1: both are the plain socket then."""
        plain, facts = self.serve(0, say, protocol, timeout_s)
        with plain:
            os.dup2(plain.fileno(), 0)
            os.dup2(plain.fileno(), 1)
        return facts

    def _told(self, question: AskReady | Serve, descriptors: tuple[int, ...], *, answered: bool) -> bytes:
        """Ask it, and its answer if there is to be one on the same connection; raises Busy."""
        record = pack_question(question)
        if self._channel is not None:
            try:
                return self._exchange(self._channel, record, descriptors, answered)
            except _Dead:
                pass  # it was restarted, or needed the room
        try:
            return self._exchange(self._connect(), record, descriptors, answered)
        except _Dead as error:
            raise self._trouble("qm-tlsd has closed the connection; does it know our uid?") from error

    def _connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _set_timeout(channel, socket.SO_RCVTIMEO, ANSWER_S)
        _set_timeout(channel, socket.SO_SNDTIMEO, ANSWER_S)  # connect(2) keeps it too
        try:
            channel.connect(self._path)
        except OSError as error:
            channel.close()
            raise self._trouble(f"{error.strerror}; is qm-tlsd running?") from error
        self._channel = channel
        return channel

    def _exchange(self, channel: socket.socket, record: bytes, descriptors: tuple[int, ...], answered: bool) -> bytes:
        """A connection on which that fails is not used again, or an answer might come late."""
        try:
            fds.send_record(channel, record, descriptors)
            if not answered:
                return b""
            answer, strays = fds.recv_record(channel)
        except ConnectionError as error:
            self.close()
            raise _Dead from error
        except OSError as error:
            raise self._trouble(os.strerror(error.errno or 0)) from error
        fds.close_all(strays)
        if not answer:
            self.close()
            raise _Dead
        return answer

    def _trouble(self, why: str) -> Busy:
        self.close()
        return Busy("TLS is not available now", detail=f"{self._path}: {why}")

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _answer(plain: socket.socket) -> Facts:
    """The framed record that comes first; raises Busy, Failed."""
    try:
        answer = unpack_answer(_exactly(plain, frame_size(_exactly(plain, FRAME))))
    except (OSError, Malformed) as error:
        raise Failed(str(error)) from error
    if isinstance(answer, Facts):
        return answer
    if answer.said:
        raise Failed(os.fsdecode(answer.why))
    raise Busy("TLS is not available now", detail=os.fsdecode(answer.why))


def _exactly(plain: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = plain.recv(size - len(data))  # no more: what follows is the peer's
        if not piece:
            raise ConnectionResetError(0, "qm-tlsd has ended")
        data += piece
    return data


def _set_timeout(channel: socket.socket, option: int, timeout_s: float) -> None:
    """The kernel keeps it; 0 is for ever."""
    limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    channel.setsockopt(socket.SOL_SOCKET, option, limit)
