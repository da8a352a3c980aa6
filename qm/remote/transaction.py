"""One transaction, as decisions: what is said next, and what each answer means for each recipient.  Pure.

The session drives it: `speak`, then the text if it is wanted, then `take` for an answer, until nothing is awaited.
"""

from collections import deque
from enum import Enum, auto
from typing import NamedTuple

from qm.errors import Permanent
from qm.remote.words import Peer, answered, failure, path
from qm.wire.delivery import Addressee, Delivery, Result
from qm.wire.replies import Reply
from qm.wire.smtpclient import Answer, Client, Extensions, Step


class Text(Enum):
    """Whether the message's text is to be sent now."""

    NO = auto()
    YES = auto()
    NOTHING = auto()  # a dot alone: the server wants text for nobody (RFC 2920 3.1)


class Command(NamedTuple):
    step: Step
    path: bytes = b""
    parameters: bytes = b""


class Traits(NamedTuple):
    """What the message asks of the server."""

    size: int  # bytes on the wire
    utf8_header: bool  # of an SMTPUTF8 message, and really not ASCII
    lmtp: bool = False


def _parameter(keyword: bytes, value: bytes) -> bytes:
    """A DSN parameter that was given; nothing if it could end the command."""
    if not value or not value.isascii() or b" " in value or not value.decode().isprintable():
        return b""
    return b" %b=%b" % (keyword, value)


class Transaction:
    """*which* are the recipients that this one is for, by their place in the delivery."""

    def __init__(
        self, delivery: Delivery, which: list[int], peer: Peer, extensions: Extensions, traits: Traits, *, clean: bool
    ) -> None:
        """Unless *clean*, another transaction was left unfinished in the session."""
        self.results: dict[int, Result] = {}
        self.again: list[int] = []  # the server had enough of recipients: these are for the next transaction
        self.text = Text.NO
        self.mail_reply: Reply | None = None
        self.begun = False  # something was said
        self.finished = False  # the server has answered to the text: nothing is left to RSET
        self._delivery = delivery
        self._which = which
        self._peer = peer
        self._extensions = extensions
        self._accepted: list[int] = []
        self._lmtp = traits.lmtp
        self._ended = 0  # answers to the text that LMTP has given
        self._asked = deque[int]()  # recipients whose RCPT is not answered
        self._text_sent = False
        self._commands = deque[Command]()
        self._plan(traits, clean)

    # Before the first command

    def _plan(self, traits: Traits, clean: bool) -> None:
        """Decide what can be decided without the server, and make the commands for the rest."""
        extensions, delivery = self._extensions, self._delivery
        if extensions.size_max and traits.size > extensions.size_max:  # RFC 1870 5
            self._undecided(failure(b"D", b"The message is too big for %b." % self._peer.name, b"5.3.4", self._peer))
            return
        try:
            sender = path(delivery.sender, smtputf8=extensions.smtputf8)
        except Permanent as error:
            self._undecided(failure(b"D", error.public.encode(), b"5.1.7"))
            return
        if not extensions.smtputf8 and (traits.utf8_header or not sender.isascii()):
            self._undecided(self._no_utf8())
            return
        paths = {place: found for place in self._which if (found := self._path(place)) is not None}
        if not paths:
            return
        ascii_only = sender.isascii() and all(p.isascii() for p in paths.values())
        utf8 = extensions.smtputf8 and (b"U" in delivery.flags or not ascii_only)
        if not clean:
            self._commands.append(Command(Step.RSET))
        self._commands.append(Command(Step.MAIL, sender, self._mail_parameters(traits.size, utf8)))
        for place, recipient in paths.items():
            self._asked.append(place)
            self._commands.append(Command(Step.RCPT, recipient, self._rcpt_parameters(delivery.recipients[place])))
        if not extensions.chunking:
            self._commands.append(Command(Step.DATA))

    def _path(self, place: int) -> bytes | None:
        """A recipient on the wire; None, with its result, for one that cannot go there."""
        try:
            found = path(self._delivery.recipients[place].address, smtputf8=self._extensions.smtputf8)
        except Permanent as error:
            self.results[place] = failure(b"D", error.public.encode(), b"5.1.3")
            return None
        if not self._extensions.smtputf8 and not found.isascii():
            self.results[place] = self._no_utf8()
            return None
        return found

    def _no_utf8(self) -> Result:
        text = b"The message needs SMTPUTF8, which %b does not offer." % self._peer.name
        return failure(b"D", text, b"5.6.7", self._peer)  # RFC 6531 3.5

    def _mail_parameters(self, size: int, utf8: bool) -> bytes:
        extensions, delivery = self._extensions, self._delivery
        parameters = b" SIZE=%d" % size if extensions.size else b""
        if extensions.eight_bit and b"8" in delivery.flags:
            parameters += b" BODY=8BITMIME"
        if utf8:
            parameters += b" SMTPUTF8"
        if extensions.dsn:
            parameters += _parameter(b"RET", delivery.ret) + _parameter(b"ENVID", delivery.envid)
        return parameters

    def _rcpt_parameters(self, recipient: Addressee) -> bytes:
        if not self._extensions.dsn:
            return b""
        return _parameter(b"NOTIFY", recipient.notify) + _parameter(b"ORCPT", recipient.orcpt)

    # What is said

    def speak(self, client: Client) -> None:
        """Say what may be said now: everything with PIPELINING, else the next command once nothing is awaited."""
        while self._commands and (self._extensions.pipelining or client.awaited is None):
            self.begun = True
            step, path, parameters = self._commands.popleft()
            if step is Step.RCPT:
                client.rcpt(path, parameters)
            elif step is Step.MAIL:
                client.mail(path, parameters)
            elif step is Step.RSET:
                client.rset()
            elif self._accepted or self._extensions.pipelining:
                client.data()
        if self._extensions.chunking and client.awaited is None and self._accepted and not self._text_sent:
            self.text = Text.YES

    @property
    def endings(self) -> int:
        """How many answers the text gets."""
        return len(self._accepted) if self._lmtp else 1

    def text_sent(self) -> None:
        """The text has left whole, its end included."""
        self._text_sent = self.text is Text.YES
        self.text = Text.NO

    # What is answered

    def take(self, answer: Answer) -> None:
        step, reply = answer
        if step is Step.MAIL:
            self.mail_reply = reply
            if not reply.ok:
                self._commands.clear()
                self._refused(self._which, b"Connected to %b but sender was rejected.", reply)
        elif step is Step.RCPT:
            self._take_rcpt(self._asked.popleft(), reply)
        elif step is Step.DATA:
            self._take_data(reply)
        elif step is Step.CHUNK:
            if not reply.ok:
                self.interrupted(reply)
                self._accepted.clear()
        elif step in (Step.TEXT, Step.LAST_CHUNK):
            self._take_end(reply)

    def _take_rcpt(self, place: int, reply: Reply) -> None:
        if place in self.results:
            return  # the sender was refused already
        if reply.ok:
            self._accepted.append(place)
        elif self._accepted and reply.code in (452, 552) and reply.status()[1:] in (b".5.3", b".0.0"):
            self.again.append(place)  # RFC 5321 4.5.3.1.10
        else:
            self._refused([place], b"%b does not like recipient.", reply)

    def _take_data(self, reply: Reply) -> None:
        if reply.code == 354:
            self.text = Text.YES if self._accepted else Text.NOTHING
        else:
            self._refused(self._accepted, b"%b failed on DATA command.", reply)

    def _take_end(self, reply: Reply) -> None:
        places = self._accepted
        if self._lmtp:  # RFC 2033 4.2: an answer for each, in their order
            places = places[self._ended : self._ended + 1]
            self._ended += 1
        self.finished = self._ended >= len(self._accepted) if self._lmtp else True
        if reply.ok and self._text_sent:
            result = answered(b"K", self._peer, b"%b accepted message.", reply, dsn=self._extensions.dsn)
            for place in places:
                self.results.setdefault(place, result)
        else:
            self._refused(places, b"%b failed after I sent the message.", reply)

    def _refused(self, places: list[int], saying: bytes, reply: Reply) -> None:
        """5xx is for ever; anything else, also 2xx or 3xx where it does not belong, is not."""
        result = answered(b"D" if reply.permanent else b"Z", self._peer, saying, reply)
        for place in places:
            self.results.setdefault(place, result)

    # When it ends in between

    def interrupted(self, reply: Reply) -> None:
        """The server has answered before the text was whole."""
        self.text = Text.NO
        self._refused(self._accepted, b"%b failed while I sent the message.", reply)

    def closing(self, reply: Reply) -> None:
        """The server closes the session with a 421 (RFC 5321 3.8)."""
        self._refused(self._which, b"%b closed the session.", reply)

    def lost(self, why: bytes) -> None:
        """The connection has died, or what comes over it makes no sense."""
        twice = b" Possible duplicate!" if self._text_sent and not self.finished else b""
        text = b"Connected to %b but %b.%b" % (self._peer.address, why, twice)
        self._undecided(failure(b"Z", text, b"4.4.2", self._peer))

    def _undecided(self, result: Result) -> None:
        for place in self._which:
            self.results.setdefault(place, result)
