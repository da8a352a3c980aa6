"""One SMTP or LMTP session: what the server at its other end offers, and one transaction after another.

Nothing that a server says is more than a failure of the delivery in hand.
"""

import time
from typing import Final

from qm.errors import Temporary
from qm.remote.connection import Lost
from qm.remote.message import Message
from qm.remote.talk import Manner, Talk
from qm.remote.transaction import Text, Traits, Transaction
from qm.remote.words import Peer
from qm.unix.following import Tell
from qm.wire.delivery import Delivery
from qm.wire.replies import BadReply, Reply
from qm.wire.smtpbody import END, BodyEncoder
from qm.wire.smtpclient import Step

PARTING_S: Final = 1.0  # how long a last word of a server that has closed is waited for


class Stale(Exception):
    """A kept session that the server has given up since: the delivery belongs into a new one."""


class Session:
    def __init__(self, talk: Talk, manner: Manner) -> None:
        """Greetings, TLS and a login; raises Unserved, Lost, TlsFailed, NotLoggedIn, and *talk* is then closed."""
        self._talk = talk
        self._lmtp = manner.lmtp
        self._clean = True  # no transaction is left unfinished
        self.used = 0  # transactions that were had
        try:
            talk.open(manner)
        except BaseException:
            talk.close()
            raise

    @property
    def peer(self) -> Peer:
        return self._talk.peer

    def watched_by(self, tell: Tell) -> None:
        """From now on the dialogue is told to *tell*."""
        self._talk.tell = tell

    @property
    def alive(self) -> bool:
        return self._talk.alive

    def close(self) -> None:
        self._talk.close()

    def still_there(self) -> bool:
        return self._talk.still_there()

    # A transaction

    def transact(self, delivery: Delivery, which: list[int], message: Message) -> Transaction:
        """Have one transaction; each of *which* has a result afterwards, or is to come *again*.

        Raises Stale if this session was kept and the server turns out not to want it; Temporary if the message cannot
        be read, and the session is then dead.
        """
        client = self._talk.client
        traits = Traits(
            message.wire_size() if client.extensions.size else 0,
            b"U" in delivery.flags and message.has_utf8_header(),
            self._lmtp,
        )
        transaction = Transaction(delivery, which, self.peer, client.extensions, traits, clean=self._clean)
        reused = self.used > 0
        self.used += 1
        try:
            self._converse(transaction, message, reused)
        except Lost as error:
            self._talk.alive = False
            if reused and transaction.mail_reply is None:
                raise Stale from error
            transaction.lost(error.why)
        except Temporary:
            self._talk.alive = False
            raise
        self._clean = transaction.finished or (self._clean and not transaction.begun)
        return transaction

    def _converse(self, transaction: Transaction, message: Message, reused: bool) -> None:
        client = self._talk.client
        while True:
            transaction.speak(client)
            if transaction.text is not Text.NO:
                self._send_text(transaction, message)
            if client.awaited is None:
                return
            answer = self._talk.answer()
            transaction.take(answer)
            if answer.step is Step.MAIL and reused and 400 <= answer.reply.code < 500:
                self._talk.alive = False
                raise Stale
            if not self.alive:
                transaction.closing(answer.reply)
                return

    def _send_text(self, transaction: Transaction, message: Message) -> None:
        """Send the text, or a dot alone; unless it has failed already, an answer is awaited afterwards."""
        if transaction.text is Text.NOTHING:
            self._talk.connection.send(END, self._talk.timeouts.send)
            self._talk.client.ended(transaction.endings)
        elif self._talk.client.extensions.chunking:
            if not self._send_chunks(transaction, message):
                return
        elif not self._send_dotted(transaction, message):
            return
        transaction.text_sent()

    def _send_dotted(self, transaction: Transaction, message: Message) -> bool:
        """The text of DATA; False if the server has cut it short with a refusal."""
        encoder = BodyEncoder()
        for piece, last in message.pieces():
            data = encoder.feed(piece)
            if last:
                data += encoder.finish() + END
            try:
                self._talk.connection.send(data, self._talk.timeouts.send)
            except Lost:
                reply = self._parting_reply()
                if reply is None or reply.ok:
                    raise
                transaction.interrupted(reply)
                return False
        self._talk.client.ended(transaction.endings)
        return True

    def _parting_reply(self) -> Reply | None:
        """What the server said before it closed the connection on us, if that has come."""
        self._talk.alive = False
        self._talk.client.ended()
        deadline_s = time.monotonic() + PARTING_S
        try:
            while (answer := self._talk.client.next_answer()) is None:
                self._talk.receive(deadline_s)
        except (Lost, BadReply):
            return None
        return answer.reply

    def _send_chunks(self, transaction: Transaction, message: Message) -> bool:
        """The text by BDAT (RFC 3030), each chunk but the last waited for; False if the server has refused one."""
        encoder = BodyEncoder(dots=False)
        for piece, last in message.pieces():
            data = encoder.feed(piece)
            if last:
                data += encoder.finish()
            self._talk.client.bdat(len(data), last=last)
            command = self._talk.client.outgoing()
            self._talk.show(b">>> ", command)
            self._talk.connection.send(command + data, self._talk.timeouts.send)
            if not last:
                answer = self._talk.answer()
                transaction.take(answer)
                if not answer.reply.ok:
                    return False
        return True
