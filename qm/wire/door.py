"""The datagrams of the queue's door (queue/socket), both directions.

    B begin                 answered at once: the service is there, stream the message now
    M message bytes         in order
    e envelope records      a part of them, more follow
    E envelope records      the last part: commits; answered
    S lengths begin envelope message
                            all of it in one datagram: commits; answered

*begin* is pack(head, tail, name): the parts of our Received field before and after the ID, and the ID that the message
must have (a bounce's) or nothing.  An answer is pack(code, text, mark): qm-queue's exit code in decimal; the ID or a
text; ``already`` for an ID that had been queued before.  After an answer the connection is ready for the next message.
Anything else is Malformed.
"""

import struct
from typing import Final, NamedTuple

from qm.wire import queuecode, queueid
from qm.wire.envelope import ENVELOPE_MAX
from qm.wire.record import Malformed, number, pack, unpack

DATAGRAM_MAX: Final = 131072  # bytes
CHUNK_MAX: Final = 65536  # message or envelope bytes of one datagram
WHOLE_MAX: Final = 110_000  # bytes of begin, envelope and message together that go as S
BEGIN_MAX: Final = 16384  # bytes; a Received field holds at most one command line and one address

_LENGTHS: Final = struct.Struct("!cII")
_ALREADY: Final = b"already"


class Begin(NamedTuple):
    head: bytes = b""
    tail: bytes = b""
    name: bytes = b""


class Whole(NamedTuple):
    begin: Begin
    envelope: bytes
    message: memoryview  # into the datagram


class Message(NamedTuple):
    piece: memoryview  # into the datagram


class More(NamedTuple):
    """A part of the envelope has come."""


class Commit(NamedTuple):
    envelope: bytes


class Answer(NamedTuple):
    code: int
    text: bytes
    already: bool = False


def begin(start: Begin) -> bytes:
    return b"B" + pack(*start)


def whole(start: Begin, envelope: bytes) -> bytes:
    """An S datagram up to the message, which the sender lets follow without copying it."""
    record = pack(*start)
    return _LENGTHS.pack(b"S", len(record), len(envelope)) + record + envelope


def answer(reply: Answer) -> bytes:
    return pack(b"%d" % reply.code, reply.text, _ALREADY if reply.already else b"")


def failed(code: int) -> Answer:
    return Answer(code, queuecode.text(code).encode())


def parse_answer(datagram: bytes) -> Answer:
    """What the service answered; raises Malformed."""
    code, text, mark = unpack(datagram, 3)
    return Answer(number(code, 255), text, mark == _ALREADY)


def _parse_begin(record: bytes) -> Begin:
    if len(record) > BEGIN_MAX:
        raise Malformed("begin too long")
    start = Begin(*unpack(record, 3))
    if start.name and not queueid.valid(start.name):
        raise Malformed("not an ID")
    return start


def _parse_whole(datagram: memoryview) -> Whole:
    if len(datagram) < _LENGTHS.size:
        raise Malformed("S without its lengths")
    _, begin_length, envelope_length = _LENGTHS.unpack_from(datagram)
    envelope_at = _LENGTHS.size + begin_length
    message_at = envelope_at + envelope_length
    if message_at > len(datagram):
        raise Malformed("S shorter than its lengths")
    start = _parse_begin(bytes(datagram[_LENGTHS.size : envelope_at]))
    return Whole(start, bytes(datagram[envelope_at:message_at]), datagram[message_at:])


def parse_first(datagram: memoryview) -> Begin | Whole:
    """What a message begins with; raises Malformed for anything else."""
    letter = bytes(datagram[:1])
    if letter == b"S":
        return _parse_whole(datagram)
    if letter == b"B":
        return _parse_begin(bytes(datagram[1:]))
    raise Malformed("datagram out of order")


class Stream:
    """A message after its B: datagrams in, events out; it holds nothing but the envelope's parts."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def take(self, datagram: memoryview) -> Message | More | Commit:
        """The event that *datagram* is; raises Malformed for one that may not come now, which ends the connection."""
        letter = bytes(datagram[:1])
        if letter == b"M" and not self._parts:
            return Message(datagram[1:])
        if letter not in (b"e", b"E"):
            raise Malformed("datagram out of order")
        if len(datagram) == 1:
            raise Malformed("a part of nothing")
        self._parts.append(bytes(datagram[1:]))
        self._length += len(datagram) - 1
        if self._length > ENVELOPE_MAX:
            raise Malformed("envelope too long")
        return More() if letter == b"e" else Commit(b"".join(self._parts))
