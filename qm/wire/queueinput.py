"""The envelope as callers of qm-queue write it on descriptor 1: F sender NUL { T recipient NUL } NUL (qmail.md 5).

It ends with its last NUL, not with the descriptor, which the caller may keep open.
"""

from qm.wire import queuecode
from qm.wire.envelope import ADDRESS_MAX, ENVELOPE_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.queuecode import failure


class EnvelopeReader:
    """Bytes in, until `feed` says that the envelope is there."""

    def __init__(self) -> None:
        self._text = bytearray()

    def feed(self, chunk: bytes) -> bool:
        """Whether all is there; raises Deferred or Refused as soon as it cannot become an envelope."""
        seen = len(self._text)
        self._text += chunk
        if self._text and not self._text.startswith(b"F"):
            raise failure(queuecode.FORMAT)
        end = self._text.find(b"\0\0", max(0, seen - 1))
        if end >= 0:
            del self._text[end + 1 :]
            return True
        if len(self._text) - (self._text.rfind(b"\0") + 1) > ADDRESS_MAX + 1:
            raise failure(queuecode.TOO_LONG)
        if len(self._text) > ENVELOPE_MAX:
            raise failure(queuecode.REFUSED)
        return False

    def envelope(self) -> Envelope:
        """What was read, after `feed` said so; raises Deferred, Refused."""
        sender, *recipients = bytes(self._text[:-1]).split(b"\0")
        if any(record[:1] != b"T" for record in recipients):
            raise failure(queuecode.FORMAT)
        if max(map(len, (sender, *recipients))) > ADDRESS_MAX + 1:
            raise failure(queuecode.TOO_LONG)
        if len(recipients) > RECIPIENTS_MAX:
            raise failure(queuecode.REFUSED)
        return Envelope(sender[1:], tuple(Recipient(record[1:]) for record in recipients))
