"""One SMTP or LMTP session: what is asked of whom, and in which order.

What fails in the queue, in userd or in us is temporary to the peer, who is told no more than that.
"""

import time
from contextlib import suppress
from typing import Final, Protocol

from qm import errors
from qm.errors import QmError, Temporary
from qm.smtpd import policy
from qm.smtpd.client import Client, Means
from qm.smtpd.policy import Verdict
from qm.smtpd.rules import Peer, Rules, size_limit
from qm.smtpd.tls import Line
from qm.smtpd.transaction import Queue, Transaction, failure
from qm.unix import log
from qm.unix.channel import Gone, TimedOut
from qm.wire import smtpevent, smtpsyntax
from qm.wire.envelope import Recipient
from qm.wire.rcpthosts import Lookup
from qm.wire.smtp import Server
from qm.wire.smtpreply import GO, OK, RECIPIENT_OK, TROUBLE, Reply

SESSION_S: Final = 86400  # a session that lasts longer is ended, as the queue ends a message that takes so long

_HELP: Final = Reply(214, b"2.0.0", b"this is qm; see RFC 5321")
_VRFY: Final = Reply(252, b"2.0.0", b"send some mail, I'll try my best")
_SILENT: Final = Reply(421, b"4.4.2", b"you have been silent for too long")
_NO_TLS: Final = Reply(502, b"5.5.1", b"there is no TLS here")
_UNDER_TLS: Final = Reply(503, b"5.5.1", b"this is under TLS already")  # RFC 3207 4.2
_TLS_LATER: Final = Reply(454, b"4.7.0", b"TLS not available due to temporary reason")  # RFC 3207 4
_INJECTION: Final = Reply(554, b"5.7.0", b"something came behind STARTTLS")
_BUG: Final = Reply(421, b"4.3.0", b"trouble here, please try again later")


class Users(Protocol):
    def exists(self, address: bytes) -> tuple[bytes, bytes]: ...  # yes, no or later, and a text; raises Temporary


_ALONE: Final = Means()


class Session:
    def __init__(
        self,
        channel: Line,
        rules: Rules,
        peer: Peer,
        more: Lookup,
        queue: Queue,
        users: Users,
        journal: log.Journal | None = None,
        means: Means = _ALONE,
    ) -> None:
        self._channel = channel
        self._rules = rules
        self._more = more  # whether a key is in morercpthosts.cdb
        self._queue = queue
        self._users = users
        self._server = Server(rules.limits, policy.bar(peer), lmtp=rules.lmtp)
        self._journal = journal or log.Journal(b"qm-lmtpd" if rules.lmtp else b"qm-smtpd")
        self._timeout_s = rules.command_s
        self._started_s = time.monotonic()
        self._in = self._out = 0  # bytes
        self._how = b"closed"  # the session ends: by us, if nothing else is known
        relay = b"no" if peer.relay is None else b"yes"
        self._journal.note(b"connect ip=%b host=%b relay=%b", peer.ip, peer.host, relay)
        self._client = Client(peer, rules, self._journal, means)
        self._mail = Transaction()

    def run(self) -> int:
        """Talk to the end; gives the exit code.  A bug is raised, when the peer has been told to come again."""
        try:
            protocol = b" LMTP" if self._rules.lmtp else b" ESMTP"
            self._write(Reply(220, b"", self._rules.greeting + protocol).encode())
            self._talk()
        except TimedOut:
            self._how = b"timeout"
        except Gone:
            self._how = b"gone"
        except Exception:
            self._how = b"bug"
            self._server.close(_BUG)
            with suppress(Gone):
                self._channel.write(self._server.outgoing())
            raise
        finally:
            self._mail.drop()
            numbers = b"%d" % self._in, b"%d" % self._out, b"%.3f" % (time.monotonic() - self._started_s)
            self._journal.note(b"end how=%b in=%b out=%b seconds=%b", self._how, *numbers)
            self._journal.write()
        return errors.OK if self._how in (b"quit", b"closed") else errors.TEMPORARY

    def _talk(self) -> None:
        while True:
            event = self._server.next_event()
            if event is smtpevent.NEED_DATA:
                self._exchange()
            elif event is smtpevent.END:
                self._write(self._server.outgoing())
                return
            else:
                self._act(event)

    def _write(self, data: bytes) -> None:
        self._out += len(data)
        self._channel.write(data)

    def _exchange(self) -> None:
        """Send what there is to say, and wait for more."""
        outgoing = self._server.outgoing()
        if outgoing:
            self._write(outgoing)
        if self._journal.due:
            self._journal.write()
        # a small message, which comes whole after 354, costs no change of the time-out
        timeout_s = self._rules.data_s if self._mail.receiving else self._rules.command_s
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._channel.set_timeout(timeout_s)
        try:
            if time.monotonic() - self._started_s > SESSION_S:
                raise TimedOut
            data = self._channel.read()
        except TimedOut:
            self._channel.write(_SILENT.encode())
            raise
        if not data:
            self._how = b"gone"
        self._in += len(data)
        self._server.receive(data)

    def _act(self, event: smtpevent.Event) -> None:
        match event:
            case smtpevent.Text():
                self._text(event.text)
            case smtpevent.Rcpt():
                self._rcpt(event)
            case smtpevent.Mail():
                self._begin(event)
            case smtpevent.Hello():
                self._greet(event)
            case smtpevent.Start():
                self._start()
            case smtpevent.End():
                self._settle(self._commit())
            case smtpevent.Rejected():
                self._journal.note(b"rejected line=%b reply=%b", smtpsyntax.loggable(event.line), event.reply.text)
            case smtpevent.StartTls():
                self._start_tls()
            case smtpevent.Auth() | smtpevent.Response():
                reply = self._client.authenticate(event, self._channel)
                self._server.bar = policy.bar(self._client.peer)
                self._server.reply(reply)
            case smtpevent.Quit():
                self._how = b"quit"
                self._server.reply(Reply(221, b"2.0.0", self._rules.me))
            case smtpevent.Reset():
                self._mail.drop()
                self._server.reply(OK)
            case smtpevent.Piece() | smtpevent.Noop():
                self._server.reply(OK)
            case smtpevent.Help():
                self._server.reply(_HELP)
            case smtpevent.Vrfy():
                self._server.reply(_VRFY)

    def _greet(self, hello: smtpevent.Hello) -> None:
        self._mail.drop()
        self._client.hello = hello
        self._journal.note(b"helo name=%b", hello.name)
        if hello.extended:
            self._server.reply(policy.extensions(self._rules, self._client.peer, self._client.offers()))
        else:
            self._server.reply(Reply(250, b"", self._rules.greeting))

    def _start_tls(self) -> None:
        """What was said in clear is forgotten, and what came behind STARTTLS is never heard (CVE-2011-0411)."""
        client = self._client
        if client.peer.secured is not None or client.tls is None:
            self._server.reply(_NO_TLS if client.peer.secured is None else _UNDER_TLS)
            return
        if self._server.unread:
            self._journal.note(b"rejected line=STARTTLS reply=%b", _INJECTION.text)
            self._server.close(_INJECTION)
            return
        self._channel.write(self._server.outgoing())
        try:
            self._channel, secured = client.tls.start(self._rules.tls_s)
        except Temporary as error:
            self._journal.note(b"tls why=%b", failure(error).why)
            self._server.reply(_TLS_LATER)
            return
        self._mail.drop()
        self._mail = Transaction()
        client.secure(secured)
        self._server = Server(self._rules.limits, policy.bar(client.peer), lmtp=self._rules.lmtp)
        self._timeout_s = self._rules.command_s
        self._channel.set_timeout(self._timeout_s)

    def _begin(self, mail: smtpevent.Mail) -> None:
        verdict = self._client.judge_sender(policy.judge_mail(self._rules, self._client.peer, mail))
        self._mail = Transaction(mail._replace(sender=verdict.address))
        self._journal.note(b"mail from=%b code=%b why=%b", mail.sender, b"%d" % verdict.reply.code, verdict.why)
        self._server.reply(verdict.reply)

    def _rcpt(self, rcpt: smtpevent.Rcpt) -> None:
        mail = self._mail
        verdict = policy.judge_count(self._rules, len(mail.recipients), mail.crowd)
        if verdict is None:
            verdict = self._judge(rcpt.recipient)
        else:
            mail.crowd += 1
        if verdict.reply is RECIPIENT_OK:
            mail.recipients.append(Recipient(verdict.address, rcpt.notify, rcpt.orcpt))
        self._journal.note(b"rcpt to=%b code=%b why=%b", rcpt.recipient, b"%d" % verdict.reply.code, verdict.why)
        self._server.reply(verdict.reply)

    def _judge(self, recipient: bytes) -> Verdict:
        try:
            recipient, peer = self._client.qualified(recipient), self._client.peer
            verdict = policy.judge_rcpt(self._rules, peer, self._more, self._mail.mail.sender, recipient)
            if verdict.reply is RECIPIENT_OK and peer.asks_userd:
                return policy.judge_mailbox(verdict, *self._users.exists(verdict.address))
            return verdict
        except QmError as error:
            return Verdict(TROUBLE, failure(error).why)

    def _start(self) -> None:
        try:
            editor = self._client.editor(self._mail, self._queue)
            if isinstance(editor, Verdict):
                self._settle(editor)
                return
            self._mail.begin(self._queue, self._client.trace(self._mail), editor)
        except QmError as error:  # said now, not after the peer has sent it all
            self._settle(failure(error))
        else:
            self._server.reply(GO)

    def _commit(self) -> Verdict:
        client = self._client
        return self._mail.commit(self._rules, client.peer.ip, client.protocol(self._mail.mail))

    def _text(self, text: bytes) -> None:
        verdict = self._mail.write(text, size_limit(self._rules, self._client.peer))
        if verdict is not None:
            self._note_message(verdict)
            self._server.refuse(verdict.reply)

    def _settle(self, verdict: Verdict) -> None:
        self._note_message(verdict)
        self._server.reply(verdict.reply)

    def _note_message(self, verdict: Verdict) -> None:
        mail = self._mail
        numbers = b"%d" % verdict.reply.code, b"%d" % mail.size, b"%d" % len(mail.recipients)
        self._journal.note(b"message id=%b code=%b size=%b recipients=%b why=%b", mail.id, *numbers, verdict.why)
        self._journal.due = True
