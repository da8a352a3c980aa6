"""POP3 server protocol, sans-IO: the AUTHORIZATION state (RFC 1939 4 and 7, RFC 2595 4, RFC 5034).

It ends with a Login, whose answer is another process's business, with Stls, NoLogin or Signal.EOF.  A command must be
consumed from the network only up to its line end: what a client pipelines after a login belongs to whoever
serves the mailbox, and what comes behind STLS to nobody.

A question (AskScram, AskLogin) is for userd; its answer is due before the next event.
"""

from typing import Final, NamedTuple

from qm.wire import sasl
from qm.wire.pop3 import LINE_MAX, Dialogue, Signal
from qm.wire.pop3login import APOP, PASS, Login, Stls, asked, checkpassword_record
from qm.wire.sasl import AskLogin, AskScram, Challenge, Exchange, Fault
from qm.wire.saslstep import Done, Refusal
from qm.wire.userquery import LoginAnswer, Method, ScramAnswer

_MAILBOX_VERBS: Final = frozenset((b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"RSET", b"LAST"))
_LOGIN_VERBS: Final = frozenset((b"USER", b"PASS", b"APOP", b"AUTH"))
_ANSWERS: Final = {  # of an exchange that tells nothing about a password; the others are not ours to answer
    Fault.CANCELLED: b"authentication cancelled",
    Fault.MALFORMED: b"cannot read that",
    Fault.TOO_LONG: b"authentication exchange line is too long",
    Fault.UNKNOWN: b"that mechanism is not offered",
}
_LINE_MAX: Final = sasl.LINE_MAX + 64  # bytes: AUTH and a mechanism may stand before an initial response
_WRONG_LOOK: Final = b"[AUTH] no name and password look like that"


class Offer(NamedTuple):
    """How this client may log in."""

    apop: bool
    stls: bool
    forced: bool  # not before TLS
    mechanisms: tuple[bytes, ...] = ()


class End(NamedTuple):
    """How an attempt to log in has ended that was another process's business."""

    after: bytes = b""  # if not empty, the first line is a challenge, and this the answer to what the client says to it
    last: bool = False  # and then hang up


class NoLogin(NamedTuple):
    """An AUTH that came to nothing."""

    name: bytes  # as far as it was said
    mechanism: bytes
    refusal: Refusal
    answered: bool  # the client has its answer, and may go on


Event = Login | Stls | NoLogin | AskLogin | AskScram | Signal


class Authorization(Dialogue):
    """The state before login."""

    def __init__(
        self, first_line: bytes, banner: bytes, offer: Offer, peer: sasl.Peer, errors_max: int, end: End
    ) -> None:
        """*first_line* is empty where nothing is to be said; *banner* is APOP's timestamp with its angle brackets."""
        super().__init__(first_line, errors_max)
        self.line_max = _LINE_MAX
        self.capabilities = tuple(self._capabilities(offer))
        self._banner = banner
        self._offer = offer
        self._peer = peer
        self._end = end
        self._over = end.last and not end.after
        self._name = b""
        self._exchange: Exchange | None = None
        self._asked: AskLogin | AskScram | None = None  # what userd has not answered yet
        self._proof: AskLogin | None = None  # what it was asked to sign

    def _capabilities(self, offer: Offer) -> list[bytes]:
        lines = [line for line in type(self).capabilities if line != b"USER" or not offer.forced]
        if offer.stls:
            lines.append(b"STLS")  # RFC 2595 4
        if offer.mechanisms:
            lines.append(b"SASL " + b" ".join(offer.mechanisms))  # RFC 5034 3
        return lines

    def next_event(self) -> Event:
        assert self._asked is None, "the last question was not answered"
        while True:
            line = self._next_line()
            if isinstance(line, Signal):
                return line
            event = self._hear(line)
            if event is not None:
                return event

    def answered(self, answer: LoginAnswer | ScramAnswer) -> Event | None:
        """What userd said; gives what comes of it, None if that is for the client to go on."""
        assert self._exchange is not None
        assert self._asked is not None, "nothing was asked"
        self._asked = None
        return self._go_on(self._exchange, self._exchange.answered(answer))

    def injected(self) -> None:
        """Something came behind STLS (CVE-2011-0411)."""
        self._put(b"-ERR", b"something came behind STLS")
        self._over = True

    def _hear(self, line: bytes) -> Event | None:
        if self._end.after:
            self._answer_at_last()
            return None
        if self._exchange is not None:
            return self._go_on(self._exchange, self._exchange.receive(line))
        return self._parse(line)

    def _too_long(self) -> None:
        self._exchange = None
        if self._end.after:
            self._answer_at_last()
        else:
            super()._too_long()

    def _answer_at_last(self) -> None:
        self._out += [self._end.after, b"\r\n"]
        self._over = self._end.last
        self._end = End()

    def _parse(self, line: bytes) -> Event | None:
        """*line* as an attempt to log in; None if it has been answered already."""
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        if len(line) > LINE_MAX and verb != b"AUTH":  # a token as an initial response may be longer
            self._too_long()
        elif verb in _LOGIN_VERBS and self._offer.forced:
            self._refuse(b"STLS first")
        elif verb == b"USER":
            self._user(argument.strip(b" "))
        elif verb == b"PASS":
            return self._password(argument)
        elif verb == b"APOP" and self._offer.apop:
            return self._apop(argument)
        elif verb == b"AUTH" and self._offer.mechanisms:
            return self._auth(argument.split(b" "))
        elif verb == b"STLS" and self._offer.stls:
            if not argument:
                return Stls()
            self._refuse(b"STLS takes no argument")
        elif verb == b"QUIT":
            self._put(b"+OK", b"goodbye")
            self._over = True
        elif verb in _MAILBOX_VERBS:
            self._refuse(b"log in first")
        else:
            self._common(verb, argument)
        return None

    def _user(self, name: bytes) -> None:
        """Any name is fine here, so that nobody learns which ones exist."""
        if not name:
            self._refuse(b"USER needs a name")
            return
        self._name = name
        self._put(b"+OK", b"")

    def _password(self, password: bytes) -> Login | None:
        """All that follows one space is the password, blanks too (RFC 1939 7, PASS)."""
        if not self._name:
            self._refuse(b"USER first")
            return None
        return self._checked(Login(PASS, self._name, password))

    def _apop(self, argument: bytes) -> Login | None:
        name, _, digest = argument.strip(b" ").partition(b" ")
        if not name or not digest:
            self._refuse(b"APOP needs a name and a digest")
            return None
        return self._checked(Login(APOP, name, digest, self._banner))

    def _checked(self, login: Login) -> Login | None:
        if not checkpassword_record(login, self._banner):
            self._refuse(_WRONG_LOOK)
            return None
        return login

    # AUTH

    def _auth(self, words: list[bytes]) -> Event | None:
        if not words[0]:  # of RFC 1734's time, and clients without CAPA still ask so
            self._put_lines(b"mechanisms follow", self._offer.mechanisms)
            return None
        if len(words) > 2:
            self._refuse(b"wrong number of arguments")
            return None
        self._exchange = Exchange(words[0], self._peer)
        return self._go_on(self._exchange, self._exchange.receive(words[1] if words[1:] else None))

    def _go_on(self, exchange: Exchange, step: sasl.Step) -> Event | None:
        if isinstance(step, Challenge):
            self._out += [b"+ ", step.line, b"\r\n"]
            return None
        if isinstance(step, AskScram) or (isinstance(step, AskLogin) and step.method is Method.SCRAM_SHA_256):
            self._proof = step if isinstance(step, AskLogin) else None
            self._asked = step
            return step
        self._exchange = None
        if isinstance(step, AskLogin):
            return self._checked(asked(step))
        if isinstance(step, Done):
            assert self._proof is not None, "userd was asked nothing but that"
            return self._checked(asked(self._proof))
        text = _ANSWERS.get(step.fault)
        if text:
            self._refuse(text)
        return NoLogin(exchange.name, exchange.mechanism, step, bool(text))
