"""qmqpc: give one message to another machine's queue, by QMQP; the same to its callers as qm-queue.

Usage:   qm-qmqpc < message 1< envelope
Reads:   fd 0 (the message, to its end), then fd 1 (the envelope), control/qmqpservers
Env:     QMHOME
Writes:  the network; nothing is kept here
As:      the caller
Exits:   0 queued there; 31 refused there; 51..91 temporary (qmail.md section 5, 16.7); nothing is printed
See:     qm-qmqpc(8)

The servers are tried in turn until one can be connected to; what it says is the answer.
"""

import socket
from collections.abc import Iterator
from typing import IO, Final

from qm.disk.control import BadControl, Controls
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, program
from qm.unix.queueinput import envelope, hand_over, message
from qm.wire import queuecode, serveraddress
from qm.wire.netstring import LENGTH_MAX, encode
from qm.wire.queuecode import failure

PORT: Final = 628
CONNECT_S: Final = 10.0  # qmail.md 16.7
WAIT_S: Final = 60.0
MEMORY_MAX: Final = 1 << 20  # bytes of a message that are held; a longer one waits in an unlinked file
ANSWER_MAX: Final = 4096  # bytes that are looked at
NO_SERVER: Final = 55
TIMED_OUT: Final = 72
NOT_THERE: Final = 73
_CODES: Final = {b"K": queuecode.QUEUED, b"D": queuecode.REFUSED, b"Z": queuecode.BUSY}
_PIECE: Final = 65536


def _gathered() -> tuple[IO[bytes], int]:
    """The message, to be read from its beginning, and its length: QMQP tells that first."""
    from tempfile import SpooledTemporaryFile

    kept = SpooledTemporaryFile(MEMORY_MAX)  # noqa: SIM115  open to our end
    length = 0
    for piece in message():
        length += len(piece)
        if length > LENGTH_MAX:
            raise failure(queuecode.REFUSED)
        kept.write(piece)
    kept.seek(0)
    return kept, length


def _frame(kept: IO[bytes], length: int) -> Iterator[bytes]:
    """One netstring of netstrings: message, sender, recipients."""
    told = envelope()
    rest = b"".join([b",", encode(told.sender), *(encode(recipient.address) for recipient in told.recipients)])
    head = b"%d:" % length
    yield b"%d:%b" % (len(head) + length + len(rest), head)
    while piece := kept.read(_PIECE):
        yield piece
    yield rest + b","


def _connect(servers: tuple[bytes, ...]) -> socket.socket:
    """The first that can be connected to; raises Deferred with the last one's reason."""
    trouble = failure(NO_SERVER)
    for line in servers:
        try:
            address, port = serveraddress.parse(line, PORT)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            channel = socket.socket(family, socket.SOCK_STREAM)
        except (ValueError, OSError):
            trouble = failure(queuecode.UNREACHABLE)
            continue
        try:
            channel.settimeout(CONNECT_S)
            channel.connect((address, port))
            channel.settimeout(None)
            return channel
        except TimeoutError:
            trouble = failure(TIMED_OUT)
        except OSError:
            trouble = failure(NOT_THERE)
        channel.close()
    raise trouble


def _ask(channel: Channel, frame: Iterator[bytes]) -> int:
    """Send everything, and find the first K, Z or D of the answer."""
    try:
        for piece in frame:
            channel.write(piece)
        answer = b""
        while len(answer) < ANSWER_MAX:
            piece = channel.read()
            answer += piece
            for byte in answer:
                if (code := _CODES.get(bytes((byte,)))) is not None:
                    return code
            if not piece:
                break
    except Gone as error:
        raise failure(queuecode.LOST) from error
    raise failure(queuecode.LOST)


def _hand_over() -> int:
    try:
        servers = Controls(("qmqpservers",)).lines("qmqpservers")
    except BadControl as error:
        raise failure(NO_SERVER) from error
    if not servers:
        raise failure(NO_SERVER)
    try:
        frame = _frame(*_gathered())
        first = next(frame)  # the envelope is read now: nobody is asked for what is not whole
    except OSError as error:
        raise failure(queuecode.WRITE, error.strerror) from error
    with _connect(servers) as server:
        channel = Channel(server.fileno(), server.fileno(), WAIT_S)
        return _ask(channel, _chained(first, frame))


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@program(at_home=False, temporary=queuecode.BUG)
def main(argv: Argv, env: Env) -> int:
    return hand_over(env, _hand_over)
