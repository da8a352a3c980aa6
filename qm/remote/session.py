"""One SMTP session: a socket, what the server at its other end offers, and one transaction after another.

The server is a stranger: every wait has a deadline (RFC 5321 4.5.3.2), every buffer a limit, and nothing that it says
is more than a failure of the delivery in hand.
"""

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.remote.connection import Connection, Lost
from qm.remote.message import Message
from qm.remote.tls import TlsFailed
from qm.remote.transaction import Text, Traits, Transaction
from qm.remote.words import Peer
from qm.wire.delivery import Delivery
from qm.wire.replies import BadReply, Reply
from qm.wire.smtpbody import END, BodyEncoder
from qm.wire.smtpclient import Answer, Client, Step
from qm.wire.tlspolicy import Demand, Level, Trouble

CLOSING: Final = 421  # RFC 5321 3.8
PARTING_S: Final = 1.0  # how long a last word of a server that has closed is waited for


class Timeouts(NamedTuple):
    """Seconds; RFC 5321 4.5.3.2."""

    connect: int
    answers: Mapping[Step, int]
    send: int  # one piece of text
    tls: int  # the handshake


class Unserved(Exception):
    """A connection, but a server that does not serve us."""

    def __init__(self, saying: bytes, reply: Reply) -> None:
        super().__init__(saying)
        self.saying = saying  # with a %b for the address
        self.reply = reply


class Stale(Exception):
    """A kept session that the server has given up since: the delivery belongs into a new one."""


class Session:
    def __init__(self, connection: Connection, peer: Peer, timeouts: Timeouts, ignored: frozenset[bytes]) -> None:
        self.peer = peer
        self._connection = connection
        self._timeouts = timeouts
        self._ignored = ignored
        self._client = Client(ignored)
        self._verified = False  # we know who it is
        self._clean = True  # no transaction is left unfinished
        self.used = 0  # transactions that were had
        self.alive = True

    # Bytes

    def _receive(self, deadline_s: float) -> None:
        self._client.receive(self._connection.receive(deadline_s))

    def _answer(self) -> Answer:
        """The next answer, of which at least one is awaited; what we have to say leaves first."""
        awaited = self._client.awaited
        assert awaited is not None
        timeout_s = self._timeouts.answers[awaited]
        waiting = self._client.outgoing()
        if waiting:
            self._connection.send(waiting, timeout_s)
        deadline_s = time.monotonic() + timeout_s
        try:
            while (answer := self._client.next_answer()) is None:
                self._receive(deadline_s)
        except BadReply as error:
            raise Lost(str(error).encode()) from error
        if answer.reply.code == CLOSING:
            self.alive = False
        return answer

    # The beginning and the end

    def open(self, helohost: bytes, demand: Demand, roots: str, *, implicit: bool = False) -> None:
        """Greeting and EHLO, or HELO where that is not known, and TLS; raises Unserved, Lost, TlsFailed.

        *implicit*: TLS comes first (RFC 8314 3).
        """
        if implicit:
            self._shake_hands(demand, roots)
        reply = self._answer().reply
        if reply.code != 220:
            raise Unserved(b"Connected to %b but greeting failed.", reply)
        self._hello(helohost)
        if not self._connection.protected and demand.level is not Level.NONE and self._start_tls(demand, roots):
            self._hello(helohost)

    def _start_tls(self, demand: Demand, roots: str) -> bool:
        """STARTTLS; False if it is not to be had and the demand can do without."""
        optional = demand.level is Level.MAY
        if not self._client.extensions.starttls:
            if optional:
                return False
            raise TlsFailed("it does not offer STARTTLS", Trouble.NOT_OFFERED)
        self._client.starttls()
        reply = self._answer().reply
        if reply.code != 220:
            if optional and self.alive:
                return False
            passing = not reply.permanent
            raise TlsFailed(f"it refused STARTTLS with {reply.code}", Trouble.NOT_OFFERED, passing=passing)
        if self._client.unread:  # CVE-2021-33515: said in clear, it would be taken for an answer behind TLS
            self.alive = False
            raise TlsFailed("it went on in clear after STARTTLS", Trouble.FAILED)
        self._shake_hands(demand, roots)
        self._client = Client(self._ignored, greeted=True)  # RFC 3207 4.2: what was said in clear is forgotten
        return True

    def _shake_hands(self, demand: Demand, roots: str) -> None:
        facts = self._connection.protect(self.peer.name, demand, roots, self._timeouts.tls)
        self.peer = self.peer._replace(tls=b"%b, %b" % (facts, demand.source))
        self._verified = demand.level in (Level.VERIFY, Level.DANE)

    def _hello(self, helohost: bytes) -> None:
        self._client.ehlo(helohost)
        reply = self._answer().reply
        if reply.permanent:  # RFC 5321 3.2
            self._client.helo(helohost)
            reply = self._answer().reply
        if not reply.ok:
            raise Unserved(b"Connected to %b but my name was rejected.", reply)

    @property
    def keeps_requirement(self) -> bool:
        """Whether it may be given a message that must not go on without TLS (RFC 8689 2)."""
        return self._verified and self._client.extensions.requiretls

    def close(self) -> None:
        """Say goodbye if that can be done at once; the answer is not waited for (qmail.md 14.4)."""
        if self.alive and self._client.awaited is None:
            self._connection.say_last(b"QUIT\r\n")
        self.alive = False
        self._connection.close()

    def still_there(self) -> bool:
        """Whether a session that was kept is as it was: alive, and nothing said meanwhile."""
        self.alive = self.alive and not self._client.unread and self._connection.is_quiet()
        return self.alive

    # A transaction

    def transact(self, delivery: Delivery, which: list[int], message: Message) -> Transaction:
        """Have one transaction; each of *which* has a result afterwards, or is to come *again*.

        Raises Stale if this session was kept and the server turns out not to want it; Temporary if the message cannot
        be read, and the session is then dead.
        """
        client = self._client
        traits = Traits(
            message.wire_size() if client.extensions.size else 0,
            b"U" in delivery.flags and message.has_utf8_header(),
            b"Q" in delivery.flags and self.keeps_requirement,
        )
        transaction = Transaction(delivery, which, self.peer, client.extensions, traits, clean=self._clean)
        reused = self.used > 0
        self.used += 1
        try:
            self._converse(transaction, message, reused)
        except Lost as error:
            self.alive = False
            if reused and transaction.mail_reply is None:
                raise Stale from error
            transaction.lost(error.why)
        except Temporary:
            self.alive = False
            raise
        self._clean = transaction.finished or (self._clean and not transaction.begun)
        return transaction

    def _converse(self, transaction: Transaction, message: Message, reused: bool) -> None:
        client = self._client
        while True:
            transaction.speak(client)
            if transaction.text is not Text.NO:
                self._send_text(transaction, message)
            if client.awaited is None:
                return
            answer = self._answer()
            transaction.take(answer)
            if answer.step is Step.MAIL and reused and 400 <= answer.reply.code < 500:
                self.alive = False
                raise Stale
            if not self.alive:
                transaction.closing(answer.reply)
                return

    def _send_text(self, transaction: Transaction, message: Message) -> None:
        """Send the text, or a dot alone; unless it has failed already, an answer is awaited afterwards."""
        if transaction.text is Text.NOTHING:
            self._connection.send(END, self._timeouts.send)
            self._client.ended()
        elif self._client.extensions.chunking:
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
                self._connection.send(data, self._timeouts.send)
            except Lost:
                reply = self._parting_reply()
                if reply is None or reply.ok:
                    raise
                transaction.interrupted(reply)
                return False
        self._client.ended()
        return True

    def _parting_reply(self) -> Reply | None:
        """What the server said before it closed the connection on us, if that has come."""
        self.alive = False
        self._client.ended()
        deadline_s = time.monotonic() + PARTING_S
        try:
            while (answer := self._client.next_answer()) is None:
                self._receive(deadline_s)
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
            self._client.bdat(len(data), last=last)
            self._connection.send(self._client.outgoing() + data, self._timeouts.send)
            if not last:
                answer = self._answer()
                transaction.take(answer)
                if not answer.reply.ok:
                    return False
        return True
