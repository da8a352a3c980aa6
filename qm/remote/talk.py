"""One connection to a server, from its greeting to our goodbye: who we are, TLS, a login, and answers to commands.

The server is a stranger: every wait has a deadline (RFC 5321 4.5.3.2), every buffer a limit.
"""

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.remote.connection import Connection, Lost
from qm.remote.login import NotLoggedIn, log_in
from qm.remote.tls import TlsFailed
from qm.remote.words import Peer
from qm.unix.following import Tell, nobody
from qm.wire.replies import BadReply, Reply
from qm.wire.saslclient import Channel
from qm.wire.smtpauth import Login
from qm.wire.smtpclient import Answer, Client, Step
from qm.wire.tlspolicy import Demand, Level, Trouble

CLOSING: Final = 421  # RFC 5321 3.8
_UNBOUND: Final = b"AUTH=SCRAM-SHA-256-PLUS"


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


class Manner(NamedTuple):
    """How a session is to begin."""

    helohost: bytes
    demand: Demand
    roots: str
    implicit: bool = False  # TLS comes first (RFC 8314 3)
    lmtp: bool = False
    login: Login | None = None


class Talk:
    def __init__(
        self, connection: Connection, peer: Peer, timeouts: Timeouts, ignored: frozenset[bytes], tell: Tell = nobody
    ) -> None:
        self.peer = peer
        self.tell = tell  # who watches the delivery in hand
        self.connection = connection
        self.timeouts = timeouts
        self._ignored = ignored
        self.client = Client(ignored)
        self.alive = True

    # Bytes

    def receive(self, deadline_s: float) -> None:
        self.client.receive(self.connection.receive(deadline_s))

    def answer(self) -> Answer:
        """The next answer, of which at least one is awaited; what we have to say leaves first.  Raises Lost."""
        awaited = self.client.awaited
        assert awaited is not None
        timeout_s = self.timeouts.answers[awaited]
        waiting = self.client.outgoing()
        if waiting:
            self.show(b">>> ", waiting)
            self.connection.send(waiting, timeout_s)
        deadline_s = time.monotonic() + timeout_s
        try:
            while (answer := self.client.next_answer()) is None:
                self.receive(deadline_s)
        except BadReply as error:
            raise Lost(str(error).encode()) from error
        self.show(b"", answer.reply.raw)
        if answer.reply.code == CLOSING:
            self.alive = False
        return answer

    def show(self, mark: bytes, text: bytes) -> None:
        if self.tell is not nobody:
            for line in text.splitlines():
                self.tell(mark + line)

    def _reply(self) -> Reply:
        return self.answer().reply

    # The beginning and the end

    def open(self, manner: Manner) -> None:
        """Greeting and hello, and TLS, and a login; raises Unserved, Lost, TlsFailed, NotLoggedIn."""
        if manner.implicit:
            self._shake_hands(manner)
        reply = self._reply()
        if reply.code != 220:
            raise Unserved(b"Connected to %b but greeting failed.", reply)
        self._hello(manner)
        if not self.connection.protected and manner.demand.level is not Level.NONE and self._start_tls(manner):
            self._hello(manner)
        if manner.login is not None:
            self._log_in(manner.login)

    def _start_tls(self, manner: Manner) -> bool:
        """STARTTLS; False if it is not to be had and the demand can do without."""
        optional = manner.demand.level is Level.MAY
        if not self.client.extensions.starttls:
            if optional:
                return False
            raise TlsFailed("it does not offer STARTTLS", Trouble.NOT_OFFERED)
        self.client.starttls()
        reply = self._reply()
        if reply.code != 220:
            if optional and self.alive:
                return False
            raise TlsFailed(f"it refused STARTTLS with {reply.code}", Trouble.NOT_OFFERED)
        if self.client.unread:  # CVE-2021-33515: said in clear, it would be taken for an answer behind TLS
            self.alive = False
            raise TlsFailed("it went on in clear after STARTTLS", Trouble.FAILED)
        self._shake_hands(manner)
        self.client = Client(self._ignored, greeted=True)  # RFC 3207 4.2: what was said in clear is forgotten
        return True

    def _shake_hands(self, manner: Manner) -> None:
        facts = self.connection.protect(self.peer.name, manner.demand, manner.roots, self.timeouts.tls)
        self.peer = self.peer._replace(tls=b"%b, %b" % (facts, manner.demand.source))

    def _hello(self, manner: Manner) -> None:
        if manner.lmtp:
            self.client.lhlo(manner.helohost)
            reply = self._reply()
            # BDAT's answers (RFC 2033 4.3) would gain us nothing
            self.client.extensions = self.client.extensions._replace(chunking=False)
        else:
            self.client.ehlo(manner.helohost)
            reply = self._reply()
            if reply.permanent:  # RFC 5321 3.2
                self.client.helo(manner.helohost)
                reply = self._reply()
        if not reply.ok:
            raise Unserved(b"Connected to %b but my name was rejected.", reply)

    def _log_in(self, login: Login) -> None:
        tell, self.tell = self.tell, nobody  # the password is the administrator's
        offered = self.client.extensions.auth
        bindings = {} if _UNBOUND in self._ignored else self.connection.bindings()
        try:
            log_in(self.client, self._reply, login, Channel(offered, bindings), protected=self.connection.protected)
        except NotLoggedIn as error:
            if error.inside and self.alive:
                self.connection.say_last(b"*\r\nQUIT\r\n")
                self.alive = False
            raise
        finally:
            self.tell = tell

    def close(self) -> None:
        """Say goodbye if that can be done at once; the answer is not waited for (qmail.md 14.4)."""
        if self.alive and self.client.awaited is None:
            self.connection.say_last(b"QUIT\r\n")
        self.alive = False
        self.connection.close()

    def still_there(self) -> bool:
        """Whether a session that was kept is as it was: alive, and nothing said meanwhile."""
        self.alive = self.alive and not self.client.unread and self.connection.is_quiet()
        return self.alive
