"""One mail transaction: a sender, recipients, and the message's way into the queue.

A message is promised only after the queue's own promise; until then every failure leaves nothing behind.
"""

import time
from typing import Final, NamedTuple, Protocol

from qm.errors import Permanent, QmError
from qm.smtpd import policy
from qm.smtpd.header import Unfit
from qm.smtpd.policy import Verdict
from qm.smtpd.rules import Rules
from qm.unix import log
from qm.unix.queueclient import Trace
from qm.wire.envelope import Envelope, Recipient
from qm.wire.header import HopCounter
from qm.wire.smtpevent import Mail
from qm.wire.smtpreply import OK, TOO_BIG, Reply


class Accepted(Protocol):
    @property
    def name(self) -> bytes: ...  # the queue ID


class Message(Protocol):
    def write(self, chunk: bytes) -> None: ...

    def commit(self, envelope: Envelope) -> Accepted: ...

    def abort(self) -> None: ...


class Editor(Protocol):
    """Changes a message on its way; both raise Unfit, QmError."""

    def feed(self, text: bytes) -> bytes: ...

    def end(self) -> bytes: ...

    @property
    def tlsoptional(self) -> bool: ...  # TLS-Required: No, once it has ended


class Queue(Protocol):
    def ensure(self) -> None: ...  # raises Temporary when the queue is out of reach

    def begin(self, trace: Trace) -> Message: ...


_NOBODY: Final = Mail(b"")


class Hold(NamedTuple):
    """Why the message is not to be delivered yet."""

    limit: bytes  # a control file
    login: bytes


class Transaction:
    def __init__(self, mail: Mail = _NOBODY) -> None:
        self.mail = mail
        self.recipients: list[Recipient] = []
        self.hold: Hold | None = None
        self.crowd = 0  # recipients that found no room
        self.size = 0  # bytes of the message so far
        self.id = b""  # of the queue, once it has promised
        self._hops = HopCounter()
        self._message: Message | None = None
        self._editor: Editor | None = None

    @property
    def receiving(self) -> bool:
        """Whether some of a message is here and more is to come."""
        return self._message is not None and self.size > 0

    def begin(self, queue: Queue, trace: Trace, editor: Editor | None = None) -> None:
        """Get a message under way; raises QmError."""
        queue.ensure()
        self._editor = editor
        self._message = queue.begin(trace)

    def write(self, text: bytes, limit: int) -> Verdict | None:
        """Pass on a piece of the message; gives a verdict when the message is lost by it, and dropped.

        *limit* is in bytes; 0: none.
        """
        assert self._message is not None
        self.size += len(text)
        if 0 < limit < self.size:
            self.drop()
            return Verdict(TOO_BIG, b"databytes")
        self._hops.feed(text)
        return self._pass_on(text)

    def _pass_on(self, text: bytes | None) -> Verdict | None:
        """Put *text*, or what the editor has kept back when that is None, into the queue; a verdict as for `write`."""
        assert self._message is not None
        try:
            if self._editor is not None:
                text = self._editor.end() if text is None else self._editor.feed(text)
            if text:
                self._message.write(text)
        except QmError as error:
            self.drop()
            return failure(error)
        except Unfit as error:
            self.drop()
            return Verdict(error.reply, error.why)
        return None

    def commit(self, rules: Rules, client: bytes, protocol: bytes) -> Verdict:
        """The message is whole: queue it.  *client* is the peer's address, *protocol* the keyword of RFC 3848."""
        assert self._message is not None
        looping = policy.judge_hops(rules, self._hops.count)
        if looping is not None:
            self.drop()
            return looping
        if self._editor is not None and (lost := self._pass_on(None)) is not None:
            return lost
        sender, _, eight_bit, smtputf8, ret, envid, requiretls, *_ = self.mail
        tlsoptional = self._editor is not None and self._editor.tlsoptional
        envelope = Envelope(sender, tuple(self.recipients), client, protocol, eight_bit, smtputf8, ret, envid)
        if requiretls or tlsoptional:
            envelope = envelope._replace(requiretls=requiretls, tlsoptional=tlsoptional)
        if self.hold is not None:
            envelope = envelope._replace(held=self.hold.limit, login=self.hold.login)
        message, self._message = self._message, None
        try:
            self.id = message.commit(envelope).name
        except QmError as error:
            return failure(error)
        text = b"ok %d id %b" % (time.time(), self.id)
        if self.hold is not None:
            return Verdict(OK._replace(text=text + b" held"), b"held:" + self.hold.limit)
        return Verdict(OK._replace(text=text), b"ok")

    def drop(self) -> None:
        """Throw away a message that is under way."""
        message, self._message = self._message, None
        if message is not None:
            message.abort()


def failure(error: QmError) -> Verdict:
    """What *error* is to the peer, who is told the public half of it, and to the log."""
    code = 554 if isinstance(error, Permanent) else 451
    public, why = (text.encode("ascii", "backslashreplace") for text in (error.public, str(error)))
    return Verdict(Reply(code, error.status.encode("ascii"), log.clean(public)), why)
