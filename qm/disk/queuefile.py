"""A queue file: one message with its envelope, in one file that tells by itself whether it is whole.

    message bytes, the first lines being our Received field
    envelope records (qm.wire.envelope)
    footer of FOOTER_SIZE bytes: an LF, the magic, length and CRC-32 of the message and of the envelope, an LF

The footer has one spelling only, and its lengths add up to the file's size, so a file that was cut anywhere, has grown
or has a changed byte is Corrupt.  `read` looks at footer and envelope, which is what send needs to plan; the message's
own sum is checked in slices, while or before its bytes are used.
"""

import os
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.wire import envelope as wire_envelope
from qm.wire.envelope import ENVELOPE_MAX, Envelope
from qm.wire.record import Malformed

FOOTER_SIZE: Final = 64  # bytes
SLICE: Final = 1024 * 1024  # bytes read at once; some milliseconds of a loop's time

_FOOTER: Final = b"\nqm1 message %013d %08x envelope %09d %08x\n"


class Corrupt(Exception):
    """A file that is not what Accept wrote: for queue/bad, never for a mailbox."""


class QueueFile(NamedTuple):
    """What `read` has found out; the message is the first *message_length* bytes of the file."""

    message_length: int
    message_crc: int
    envelope: Envelope  # with uid, pid and born_ns


def footer(message_length: int, message_crc: int, envelope_length: int, envelope_crc: int) -> bytes:
    return _FOOTER % (message_length, message_crc, envelope_length, envelope_crc)


def parse_footer(text: bytes) -> tuple[int, int, int, int]:
    """Message length and CRC, envelope length and CRC; raises Corrupt for what `footer` would not have written."""
    try:
        numbers = int(text[13:26]), int(text[27:35], 16), int(text[45:54]), int(text[55:63], 16)
        same = min(numbers) >= 0 and footer(*numbers) == text
    except ValueError:
        same = False
    if not same:
        raise Corrupt("no footer at its end")
    return numbers


def _exactly(fd: int, length: int, offset: int) -> bytes:
    """*length* bytes at *offset*, or Corrupt if the file has become shorter."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise Corrupt("shorter than it was")
        data += more
    return data


def read(fd: int) -> QueueFile:
    """Check footer and envelope of an open queue file; raises Corrupt, and OSError for a disk that cannot be read."""
    size = os.fstat(fd).st_size
    if size < FOOTER_SIZE:
        raise Corrupt("too short for a footer")
    message_length, message_crc, length, crc = parse_footer(_exactly(fd, FOOTER_SIZE, size - FOOTER_SIZE))
    if message_length + length + FOOTER_SIZE != size or length > ENVELOPE_MAX:
        raise Corrupt("not as long as its footer says")
    text = _exactly(fd, length, message_length)
    if zlib.crc32(text) != crc:
        raise Corrupt("envelope does not match its sum")
    try:
        envelope = wire_envelope.decode(text)
    except Malformed as error:
        raise Corrupt(str(error)) from error
    if envelope.uid < 0 or envelope.pid < 0 or not envelope.born_ns:
        raise Corrupt("envelope without its birth")
    return QueueFile(message_length, message_crc, envelope)


def read_message(fd: int, file: QueueFile, offset: int = 0, most: int = SLICE) -> bytes:
    """Up to *most* message bytes from *offset*; b"" at the message's end.  Never a byte of the envelope."""
    length = min(most, file.message_length - offset)
    return _exactly(fd, length, offset) if length > 0 else b""


def checked_message(fd: int, file: QueueFile, most: int = SLICE) -> Iterator[bytes]:
    """The message in slices; raises Corrupt instead of ending if its sum is wrong.

    Whoever copies it promises nothing before the end.  A loop takes one slice a turn.
    """
    crc = offset = 0
    while piece := read_message(fd, file, offset, most):
        crc = zlib.crc32(piece, crc)
        offset += len(piece)
        yield piece
    if crc != file.message_crc:
        raise Corrupt("message does not match its sum")
