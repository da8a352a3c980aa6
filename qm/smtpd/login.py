"""AUTH: from a client's command to a login or a refusal (RFC 4954).

The mechanisms are qm.wire.sasl's, and who knows passwords is userd, or a checkpassword of the command line.  The
answers to an unknown name and to a wrong password are the same.  What a client sent is in no log line but its name.
"""

import os
from collections.abc import Collection
from typing import Final, Protocol, overload

from qm.errors import Temporary
from qm.smtpd.rules import Peer, Rules
from qm.smtpd.tls import Line
from qm.unix import log
from qm.wire import sasl
from qm.wire.sasl import AskLogin, AskScram, Challenge, Exchange, Fault, Step
from qm.wire.saslstep import METHOD_MAX, Done, Refusal
from qm.wire.smtpevent import Auth
from qm.wire.smtpreply import Reply
from qm.wire.userquery import Exists, Later, Login, LoginAnswer, ScramAnswer, Spent

DELAY_MAX_S: Final = 60.0

_WELCOME: Final = Reply(235, b"2.7.0", b"welcome")
_ALREADY: Final = Reply(503, b"5.5.1", b"you have authenticated already")
_NOT_OFFERED: Final = Reply(504, b"5.5.4", b"that mechanism is not offered")
_ENCRYPT: Final = Reply(538, b"5.7.11", b"encryption required for requested authentication mechanism")  # RFC 4954 6
_LATER: Final = Reply(454, b"4.7.0", b"cannot check that now, please try again later")
_ANSWERS: Final = {  # RFC 4954 4, 6
    Fault.CANCELLED: Reply(501, b"5.7.0", b"authentication cancelled"),
    Fault.MALFORMED: Reply(501, b"5.5.2", b"cannot read that"),
    Fault.TOO_LONG: Reply(500, b"5.5.6", b"authentication exchange line is too long"),
    Fault.UNKNOWN: _NOT_OFFERED,
    Fault.WRONG: Reply(535, b"5.7.8", b"authentication credentials invalid"),
    Fault.LOCKED: _LATER,
    Fault.LATER: _LATER,
}


class Store(Protocol):
    """Who knows passwords, as qm.unix.userclient.UserClient; all may raise Temporary."""

    def mechanisms(self) -> tuple[bytes, ...]: ...

    @overload
    def answer(self, question: AskLogin) -> LoginAnswer: ...

    @overload
    def answer(self, question: AskScram) -> ScramAnswer: ...

    def sender(self, login: Login, address: bytes) -> Exists: ...

    def spend(self, login: Login, recipients: int, domains: Collection[bytes]) -> Spent: ...


class Logins:
    """The attempts of one session; what follows STARTTLS is another."""

    def __init__(self, store: Store, rules: Rules, journal: log.Journal) -> None:
        self._store = store
        self._rules = rules
        self._journal = journal
        self._exchange: Exchange | None = None
        self._stored: tuple[bytes, ...] = ()  # what the store can check, once it has told
        self.login: Login | None = None  # of this session, for good

    def offered(self, peer: Peer) -> tuple[bytes, ...]:
        """The mechanisms to offer to *peer*; none when nobody can tell now."""
        secured = peer.secured
        if secured is None and not self._rules.authclear:
            return ()
        try:
            self._stored = self._stored or self._store.mechanisms()
        except Temporary as error:
            self._journal.note(b"login why=%b", str(error).encode())
            return ()
        return sasl.mechanisms(
            self._stored,
            encrypted=secured is not None,
            clear=self._rules.authclear,
            bindings=secured.bindings if secured else (),
            client=secured.client if secured else b"",
        )

    def begin(self, auth: Auth, peer: Peer, line: Line) -> Reply:
        """The answer to AUTH."""
        if self.login is not None:
            return _ALREADY  # RFC 4954 4
        offered = self.offered(peer)
        if not offered:
            return _ENCRYPT if peer.secured is None and not self._rules.authclear else _LATER
        secured = peer.secured
        whom = sasl.Peer(
            peer.ip,
            self._rules.authhost,
            os.urandom(16).hex().encode(),
            offered,
            secured.bindings if secured else {},
            secured.client if secured else b"",
        )
        self._exchange = Exchange(auth.mechanism, whom)
        return self._go_on(self._exchange, self._exchange.receive(auth.initial), peer, line)

    def go_on(self, response: bytes, peer: Peer, line: Line) -> Reply:
        """The answer to a line of the client's."""
        assert self._exchange is not None
        return self._go_on(self._exchange, self._exchange.receive(response), peer, line)

    def _go_on(self, exchange: Exchange, step: Step, peer: Peer, line: Line) -> Reply:
        while isinstance(step, AskLogin | AskScram):
            step = exchange.answered(self._ask(step))
        if isinstance(step, Challenge):
            return Reply(334, b"", step.line)
        self._exchange = None
        return self._end(exchange, step, peer, line)

    def _ask(self, question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
        try:
            return self._store.answer(question)
        except Temporary as error:
            return Later(str(error).encode("utf-8", "backslashreplace"))

    def _end(self, exchange: Exchange, end: Done | Refusal, peer: Peer, line: Line) -> Reply:
        if isinstance(end, Done):
            self.login = end.login
            reply, why = _WELCOME, b"ok"
        else:
            reply, why = _ANSWERS[end.fault], end.why
        method = exchange.mechanism[:METHOD_MAX]
        self._journal.note(
            b"login name=%b method=%b from=%b code=%b why=%b", exchange.name, method, peer.ip, b"%d" % reply.code, why
        )
        self._journal.due = True
        if isinstance(end, Refusal) and end.delay_s:
            self._journal.write()  # whoever watches for guesses sees them now
            line.linger(min(end.delay_s, DELAY_MAX_S))
        return reply
