"""A machine that hands messages over in netstrings, by QMTP or QMQP (qmail.md 16.7): what the servers of both do.

Bytes come from a channel, and go to the queue as they come.  Nothing of the peer's is kept but what is bounded.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

from qm import errors
from qm.errors import Permanent, QmError
from qm.unix import log
from qm.unix.channel import Channel, Gone, TimedOut
from qm.unix.entrance import Submission
from qm.unix.queueclient import Trace
from qm.wire import trace
from qm.wire.envelope import Envelope
from qm.wire.netstring import Netstrings
from qm.wire.record import Malformed

LIFE_S: Final = 3600.0  # of a connection, as qmail
WAIT_S: Final = 1200.0  # for the peer's next bytes
TEXT_MAX: Final = 64  # bytes of a variable that goes into Received
BAD_SENDER: Final = b"Dsorry, that is no sender's address (#5.1.7)"
BAD_RECIPIENT: Final = b"Dsorry, that is no recipient's address (#5.1.3)"
_TOO_BIG: Final = Permanent("sorry, that message is larger than I take", status="3.4")


class Peer:
    """Who has connected, and what comes from there; *protocol* is QMTP or QMQP."""

    def __init__(self, channel: Channel, env: dict[bytes, bytes], me: bytes, protocol: bytes) -> None:
        self._channel = channel
        self._host, ip, info = (
            env.get(name, default)[:TEXT_MAX]
            for name, default in ((b"TCPREMOTEHOST", b"unknown"), (b"TCPREMOTEIP", b"unknown"), (b"TCPREMOTEINFO", b""))
        )
        self._client = trace.client(self._host, ip, info)
        self._me = me
        self.ip = ip
        self.protocol = protocol
        self.input = Netstrings(self._read)
        self._until_s = time.monotonic() + LIFE_S

    def _read(self) -> bytes:
        if time.monotonic() > self._until_s:
            raise TimedOut
        return self._channel.read()

    def write(self, answer: bytes) -> None:
        """Raises Gone."""
        self._channel.write(answer)

    def trace(self) -> Trace:
        """The Received field of a message."""
        return Trace(*trace.received(self._host, self._client, self._me, self.protocol, b""))

    def talk(self, one: Callable[[], object]) -> int:
        """The exit code of a session that *one* makes; it may raise Malformed and Gone."""
        try:
            one()
        except Malformed as error:
            log.warning(b"qm-%bd" % self.protocol.lower(), f"from {log.clean(self.ip).decode('latin-1')}: {error}")
            return errors.PERMANENT
        except Gone:
            return errors.TEMPORARY
        return errors.OK

    def note(self, envelope: Envelope, answer: bytes) -> None:
        """A line in the log."""
        journal = log.Journal(b"qm-%bd" % self.protocol.lower())
        count = b"%d" % len(envelope.recipients)
        journal.note(b"message ip=%b from=%b recipients=%b answer=%b", self.ip, envelope.sender, count, answer)
        journal.write()


def pass_on(pieces: Iterable[bytes], submission: Submission, most: int = 0) -> QmError | None:
    """Give the message, of *most* bytes unless that is 0, to the queue.

    What stands against it is for the answer, when all has come.
    """
    trouble: QmError | None = None
    size = 0
    for piece in pieces:
        size += len(piece)
        if trouble is None:
            try:
                submission.write(piece)
            except QmError as error:
                trouble = error
        if 0 < most < size:
            trouble = _TOO_BIG
    return trouble


def commit(submission: Submission, envelope: Envelope, trouble: QmError | None) -> bytes:
    """The answer: K, when the message is queued."""
    try:
        if trouble is None:
            return b"Kok %d id %b" % (time.time(), submission.commit(envelope).name)
        return said(trouble)
    except QmError as error:
        return said(error)


def said(error: QmError) -> bytes:
    """D or Z, and why."""
    letter = b"D" if isinstance(error, Permanent) else b"Z"
    text, status = (part.encode("ascii", "replace") for part in (error.public, error.status))
    return b"%b%b (#%b)" % (letter, text, status)
