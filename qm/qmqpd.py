"""qmqpd: receive messages by QMQP on descriptors 0 and 1, from machines whose queue we are.

Usage:   qm-qmqpd
Reads:   fd 0 (peer), control/me
Env:     TCPREMOTEIP, TCPREMOTEHOST, TCPREMOTEINFO
Writes:  fd 1 (peer), fd 2 (log)
Asks:    queue, once for the message
As:      qmaild; needs no file that it can write
Exits:   0 the peer has had its answer, or said nothing; 100 usage, or what came is no QMQP; 111 trouble
See:     qm-qmqpd(8), qmail.md 16.7

Whoever may connect may send anything to anybody: the rules of tcpserver say who that is.
"""

import time
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.errors import QmError
from qm.unix import log, privs
from qm.unix.channel import Channel, Gone, TimedOut
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.queueclient import QueueClient, Submission, Trace
from qm.wire import trace
from qm.wire.envelope import ADDRESS_MAX, ENVELOPE_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.netstring import Netstrings, encode
from qm.wire.record import Malformed

NAME: Final = b"qm-qmqpd"
LIFE_S: Final = 3600.0  # of a connection, as qmail
WAIT_S: Final = 1200.0  # for the peer's next bytes
TEXT_MAX: Final = 64  # bytes of a variable that goes into Received
_BAD_SENDER: Final = b"Dsorry, that is no sender's address (#5.1.7)"
_BAD_RECIPIENT: Final = b"Dsorry, that is no recipient's address (#5.1.3)"
_TOO_MANY: Final = b"Dsorry, too many recipients (#5.5.3)"


class _Session:
    """One message; *channel* is where it comes from."""

    def __init__(self, channel: Channel, me: bytes, env: Env) -> None:
        self._channel = channel
        self._me = me
        self._host = env.get(b"TCPREMOTEHOST", b"unknown")[:TEXT_MAX]
        self._ip = env.get(b"TCPREMOTEIP", b"unknown")[:TEXT_MAX]
        self._info = env.get(b"TCPREMOTEINFO", b"")[:TEXT_MAX]
        self._input = Netstrings(self._read)
        self._until_s = time.monotonic() + LIFE_S

    def _read(self) -> bytes:
        if time.monotonic() > self._until_s:
            raise TimedOut
        return self._channel.read()

    def run(self) -> int:
        try:
            if not self._input.over():
                self._channel.write(encode(self._answer()))
            return errors.OK
        except Malformed as error:
            log.warning(NAME, f"from {log.clean(self._ip).decode('latin-1')}: {error}")
            return errors.PERMANENT
        except Gone:
            return errors.TEMPORARY

    def _answer(self) -> bytes:
        """Take the message; raises Malformed, Gone."""
        length = self._input.length()
        start = self._input.taken
        client = trace.client(self._host, self._ip, self._info)
        head, tail = trace.received(self._host, client, self._me, b"QMQP", b"")
        with QueueClient() as queue:
            submission, trouble = self._message(queue.begin(Trace(head, tail)))
            envelope, refusal = self._envelope(start + length)
            if self._input.taken != start + length:
                raise Malformed("a netstring that is not as long as it says")
            self._input.end()
            answer = refusal or (_said(trouble) if trouble else self._commit(submission, envelope))
        self._note(envelope, answer)
        return answer

    def _message(self, submission: Submission) -> tuple[Submission, QmError | None]:
        """Pass on the message; what the queue says against it is for the answer, when all has come."""
        trouble: QmError | None = None
        for piece in self._input.pieces(self._input.length()):
            if trouble is None:
                try:
                    submission.write(piece)
                except QmError as error:
                    trouble = error
        self._input.end()
        return submission, trouble

    def _envelope(self, end: int) -> tuple[Envelope, bytes]:
        """What comes before the byte *end*, and what is wrong with it."""
        sender = self._input.text(ADDRESS_MAX)
        refusal = _BAD_SENDER if sender is None or b"\0" in sender else b""
        recipients: list[Recipient] = []
        size = 0
        while self._input.taken < end:
            address = self._input.text(ADDRESS_MAX)
            if not address or b"\0" in address:
                refusal = refusal or _BAD_RECIPIENT
            elif len(recipients) >= RECIPIENTS_MAX or size > ENVELOPE_MAX // 2:
                refusal = refusal or _TOO_MANY
            else:
                size += len(address) + 2
                recipients.append(Recipient(address))
        return Envelope(sender or b"", tuple(recipients), self._ip, b"QMQP"), refusal

    @staticmethod
    def _commit(submission: Submission, envelope: Envelope) -> bytes:
        try:
            return b"Kok %d id %b" % (time.time(), submission.commit(envelope).name)
        except QmError as error:
            return _said(error)

    def _note(self, envelope: Envelope, answer: bytes) -> None:
        journal = log.Journal(NAME)
        count = b"%d" % len(envelope.recipients)
        journal.note(b"message ip=%b from=%b recipients=%b answer=%b", self._ip, envelope.sender, count, answer)
        journal.write()


def _said(error: QmError) -> bytes:
    letter, digit = (b"D", b"5") if isinstance(error, errors.Permanent) else (b"Z", b"4")
    text, status = (part.encode("ascii", "replace") for part in (error.public, error.status))
    return b"%b%b (#%b.%b)" % (letter, text, digit, status)


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-qmqpd")
    if privs.is_root():  # started without -u: what reads the network is never root
        privs.become(privs.role("qmaild"))
    channel = Channel(0, 1, WAIT_S)
    try:
        return _Session(channel, Controls(("me",)).me(), env).run()
    finally:
        with suppress(Gone):
            channel.hang_up()
