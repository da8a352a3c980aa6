"""The queue's client: how smtpd, qm-queue, local's forwards and send's bounces put a message into the queue.

    with QueueClient() as q:
        m = q.begin(Trace(head, tail))
        m.write(chunk)                    # any number, any size
        accepted = m.commit(envelope)     # or m.abort()

A small message goes as one datagram when it is committed; a large one is streamed and never held.  The connection is
kept for the next message.  One that has died meanwhile is opened again before anything is entrusted to it; afterwards
its end is a temporary failure, since nobody can know whether the message is in the queue.
"""

import errno
from typing import Final, NamedTuple

from qm.unix.queueline import Ended, Line
from qm.wire import door, queuecode
from qm.wire import envelope as wire_envelope
from qm.wire.envelope import ENVELOPE_MAX, RECIPIENTS_MAX, AddressTooLong, Envelope
from qm.wire.queuecode import Deferred

PATH: Final = "queue/socket"
TIMEOUT_S: Final = 300.0  # of each step; RFC 5321 4.5.3.2.6 has 600 s for the whole answer to DATA
CHUNK_MIN: Final = 4096  # bytes; a socket buffer that takes less is broken


class Trace(NamedTuple):
    """Our Received field but for the ID, which goes between the two, and the date at the end."""

    head: bytes = b""
    tail: bytes = b""


NO_TRACE: Final = Trace()  # the service says who we are


class Accepted(NamedTuple):
    name: bytes  # the ID
    already: bool = False  # it had been queued before


class QueueClient:
    """One message at a time; *timeout_s* is for each wait."""

    def __init__(self, path: str | bytes = PATH, timeout_s: float = TIMEOUT_S) -> None:
        self._line = Line(path, timeout_s)
        self._last: Submission | None = None

    def __enter__(self) -> "QueueClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Also throws away a message that is not committed."""
        self._line.close()

    def ensure(self) -> None:
        """Be connected; raises Deferred if the service is not there."""
        if self._line.is_open and not self._line.is_alive():
            self._line.close()
        self._line.open()

    def begin(self, trace: Trace = NO_TRACE, name: bytes = b"") -> "Submission":
        """A new message; one that is not committed yet is thrown away.  *name* is a derived ID (a bounce's)."""
        if self._last is not None:
            self._last.abort()
        self._last = Submission(self._line, door.Begin(trace.head, trace.tail, name))
        return self._last


class Submission:
    """One message on its way; made by `QueueClient.begin`, over after commit, abort or any exception."""

    def __init__(self, line: Line, start: door.Begin) -> None:
        self._line = line
        self._start = start
        self._held = bytearray()
        self._chunk = door.CHUNK_MAX
        self._streaming = False

    def write(self, chunk: bytes | memoryview) -> None:
        """More of the message; raises Deferred."""
        self._held += chunk
        if not self._streaming and len(self._held) > door.WHOLE_MAX:
            self._stream()
        if self._streaming and len(self._held) >= self._chunk:
            self._pour(self._chunk)

    def commit(self, envelope: Envelope) -> Accepted:
        """Queue it; raises Deferred, Refused, and ValueError for a NUL in a field."""
        text = self._encoded(envelope)
        if not self._streaming and not self._whole(text):
            self._stream()
        if self._streaming:
            self._pour(1)
            self._pour_envelope(text)
        streamed, self._streaming = self._streaming, False
        return self._accepted(streamed)

    def _accepted(self, streamed: bool) -> Accepted:
        """Wait for the answer to a whole message."""
        try:
            answer = self._line.answer()
        except Ended as error:
            raise queuecode.failure(queuecode.LOST, "the service closed without an answer") from error
        if answer.code:
            if streamed:
                self._line.close()  # the service closes it too: it may have stopped listening in the middle
            raise queuecode.failure(answer.code, "said by the queue service")
        return Accepted(answer.text, answer.already)

    def abort(self) -> None:
        """Throw it away; nothing is left."""
        self._held = bytearray()  # the traceback of a failed write may still hold a view of the old one
        if self._streaming:
            self._streaming = False
            self._line.close()

    def _encoded(self, envelope: Envelope) -> bytes:
        try:
            text = wire_envelope.encode(envelope)
        except AddressTooLong as error:
            self.abort()
            raise queuecode.failure(queuecode.TOO_LONG) from error
        if len(envelope.recipients) > RECIPIENTS_MAX or len(text) > ENVELOPE_MAX:
            self.abort()
            raise queuecode.failure(queuecode.REFUSED, "too many recipients")
        return text

    def _whole(self, text: bytes) -> bool:
        """Send everything as one datagram; False if it is too large for that."""
        head = door.whole(self._start, text)
        if len(head) + len(self._held) > door.DATAGRAM_MAX:
            return False
        try:
            self._line.first(head, self._held)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise queuecode.failure(queuecode.UNREACHABLE, error.strerror) from error
            return False
        return True

    def _stream(self) -> None:
        """Begin to send in parts, once the service says that it is there."""
        kept = self._line.is_open
        try:
            self._begin()
        except Ended as error:
            if not kept:
                raise queuecode.failure(queuecode.UNREACHABLE, "the service closed at once") from error
            try:
                self._begin()  # it had just left a kept connection; nothing was entrusted yet
            except Ended:
                raise queuecode.failure(queuecode.UNREACHABLE, "the service closed twice") from error

    def _begin(self) -> None:
        try:
            self._line.first(door.begin(self._start))
        except OSError as error:
            raise queuecode.failure(queuecode.UNREACHABLE, error.strerror) from error
        answer = self._line.answer()
        if answer.code:
            self._line.close()
            raise queuecode.failure(answer.code, "said by the queue service")
        self._streaming = True

    def _pour(self, least: int) -> None:
        """Send message bytes in chunks until fewer than *least* are held."""
        done = 0
        with memoryview(self._held) as view:
            while len(view) - done >= least:
                done += self._part(b"M", view[done : done + self._chunk])
        del self._held[:done]

    def _pour_envelope(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            letter = b"e" if len(rest) > self._chunk else b"E"
            rest = rest[self._part(letter, rest[: self._chunk]) :]

    def _part(self, letter: bytes, piece: memoryview) -> int:
        """Send one part of a streamed message; how many bytes of it went: none if the kernel wants smaller ones."""
        try:
            self._line.send(letter, piece)
        except OSError as error:
            if error.errno == errno.EMSGSIZE and self._chunk > CHUNK_MIN:
                self._chunk //= 2
                return 0
            raise self._cut_off(error) from error
        return len(piece)

    def _cut_off(self, error: OSError) -> Exception:
        """Why the service takes no more: it may have said so.  It has no end of the envelope, so it has no message."""
        try:
            answer = self._line.answer()
        except (Ended, Deferred):
            answer = door.Answer(queuecode.UNREACHABLE, b"")
        self._streaming = False
        self._line.close()
        return queuecode.failure(answer.code or queuecode.UNREACHABLE, f"cut off: {error.strerror}")
