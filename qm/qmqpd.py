"""qmqpd: receive messages by QMQP on descriptors 0 and 1, from machines whose queue we are.

Usage:   qm-qmqpd
Reads:   fd 0 (peer), control/me
Env:     TCPREMOTEIP, TCPREMOTEHOST, TCPREMOTEINFO, QMAILQUEUE
Writes:  fd 1 (peer), fd 2 (log)
Asks:    queue, once for the message
As:      qmaild; needs no file that it can write
Exits:   0 the peer has had its answer, or said nothing; 100 usage, or what came is no QMQP; 111 trouble
See:     qm-qmqpd(8), qmail.md 16.7

Whoever may connect may send anything to anybody: the rules of tcpserver say who that is.
"""

from contextlib import suppress
from typing import Final

from qm.disk.control import Controls
from qm.unix import entrance, handover, privs
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.envelope import ADDRESS_MAX, ENVELOPE_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.netstring import encode
from qm.wire.record import Malformed

_TOO_MANY: Final = b"Dsorry, too many recipients (#5.5.3)"


class _Session:
    """One message."""

    def __init__(self, peer: handover.Peer, queue: entrance.Queue) -> None:
        self._peer = peer
        self._input = peer.input
        self._queue = queue

    def run(self) -> None:
        """Raises Malformed, Gone."""
        if not self._input.over():
            self._peer.write(encode(self._answer()))

    def _answer(self) -> bytes:
        """Take the message; raises Malformed, Gone."""
        length = self._input.length()
        start = self._input.taken
        with self._queue as queue:
            submission = queue.begin(self._peer.trace())
            trouble = handover.pass_on(self._input.pieces(self._input.length()), submission)
            self._input.end()
            envelope, refusal = self._envelope(start + length)
            if self._input.taken != start + length:
                raise Malformed("a netstring that is not as long as it says")
            self._input.end()
            answer = refusal or handover.commit(submission, envelope, trouble)
        self._peer.note(envelope, answer)
        return answer

    def _envelope(self, end: int) -> tuple[Envelope, bytes]:
        """What comes before the byte *end*, and what is wrong with it."""
        sender = self._input.text(ADDRESS_MAX)
        refusal = handover.BAD_SENDER if sender is None or b"\0" in sender else b""
        recipients: list[Recipient] = []
        size = 0
        while self._input.taken < end:
            address = self._input.text(ADDRESS_MAX)
            if not address or b"\0" in address:
                refusal = refusal or handover.BAD_RECIPIENT
            elif len(recipients) >= RECIPIENTS_MAX or size > ENVELOPE_MAX // 2:
                refusal = refusal or _TOO_MANY
            else:
                size += len(address) + 2
                recipients.append(Recipient(address))
        return Envelope(sender or b"", tuple(recipients), self._peer.ip, self._peer.protocol), refusal


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-qmqpd")
    if privs.is_root():  # started without -u: what reads the network is never root
        privs.become(privs.role("qmaild"))
    channel = Channel(0, 1, handover.WAIT_S)
    try:
        peer = handover.Peer(channel, env, Controls(("me",)).me(), b"QMQP")
        return peer.talk(_Session(peer, entrance.queue(env)).run)
    finally:
        with suppress(Gone):
            channel.hang_up()
