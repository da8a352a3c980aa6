"""The other end of a session, as far as we know it: its address and name, what TLS agreed on, who has logged in."""

from typing import Final, NamedTuple

from qm.errors import QmError
from qm.smtpd.login import Logins, Store
from qm.smtpd.policy import Verdict
from qm.smtpd.rules import Peer, Rules
from qm.smtpd.submission import Editor, Submission
from qm.smtpd.tls import Line, Starter
from qm.smtpd.transaction import Queue, Transaction, failure
from qm.unix import log
from qm.unix.queueclient import NO_TRACE, Trace
from qm.wire import smtpevent, trace
from qm.wire.envelope import Envelope, Recipient
from qm.wire.secured import Secured
from qm.wire.smtpreply import GO, SENDER_OK, TROUBLE, Reply

_HIDDEN: Final = (b"submission", b"hidden")  # control/hideclient: in the place of who the client is
_NO_AUTH: Final = Reply(502, b"5.5.1", b"nobody can log in here")
_NOBODY: Final = smtpevent.Hello(b"", False)


class Means(NamedTuple):
    """What a session may use besides the queue and userd's knowledge of mailboxes."""

    tls: Starter | None = None  # STARTTLS
    store: Store | None = None  # AUTH
    submission: Submission | None = None  # the rules for mail of our own users


class Client:
    def __init__(self, peer: Peer, rules: Rules, journal: log.Journal, means: Means) -> None:
        self.tls = means.tls
        self._connected = peer
        self._rules = rules
        self._journal = journal
        self._store = means.store
        self._submission = means.submission
        self._begin(peer)

    def _begin(self, peer: Peer) -> None:
        self.peer = peer
        self.hello = _NOBODY
        self._logins = None if self._store is None else Logins(self._store, self._rules, self._journal)
        if peer.secured is not None:
            version, cipher, sni, *_ = peer.secured
            self._journal.note(b"tls version=%b cipher=%b sni=%b", version, cipher, sni)

    def secure(self, secured: Secured) -> None:
        """It is under TLS now, and what it said before is forgotten, a login too (RFC 3207 4.2)."""
        self._begin(self._connected._replace(secured=secured))

    def offers(self) -> list[bytes]:
        """What EHLO tells this client and not every other."""
        offers = []
        if self.tls is not None and self.peer.secured is None and self.tls.ready():
            offers.append(b"STARTTLS")
        mechanisms = self._logins.offered(self.peer) if self._logins is not None else ()
        if mechanisms:
            offers.append(b"AUTH " + b" ".join(mechanisms))
        return offers

    def authenticate(self, event: smtpevent.Auth | smtpevent.Response, line: Line) -> Reply:
        """The answer to AUTH, or to a line of its exchange; who has logged in may relay."""
        logins = self._logins
        if logins is None:
            return _NO_AUTH
        if isinstance(event, smtpevent.Auth):
            reply = logins.begin(event, self.peer, line)
        else:
            reply = logins.go_on(event.line, self.peer, line)
        if logins.login is not None and self.peer.login is None:
            self.peer = self.peer._replace(login=logins.login, relay=self.peer.relay or b"")
        return reply

    # What it sends

    def protocol(self, mail: smtpevent.Mail) -> bytes:
        peer = self.peer
        return trace.protocol(
            extended=self.hello.extended,
            smtputf8=mail.smtputf8,
            tls=peer.secured is not None,
            authenticated=peer.login is not None,
            lmtp=self._rules.lmtp,
        )

    def trace(self, transaction: Transaction) -> Trace:
        peer, recipients, helo = self.peer, transaction.recipients, self.hello.name
        if peer.submission and self._rules.hideclient:
            helo, client = _HIDDEN
        else:
            client = trace.client(peer.host, peer.ip, peer.info)
        protocol = self.protocol(transaction.mail)
        if peer.secured is not None:
            protocol = trace.under_tls(protocol, peer.secured.version, peer.secured.cipher)
        only = recipients[0].address if len(recipients) == 1 else b""
        return Trace(*trace.received(helo, client, self._rules.me, protocol, only))

    def judge_sender(self, verdict: Verdict) -> Verdict:
        """What submission makes of a sender that is welcome otherwise."""
        submission, login = self._submission, self.peer.login
        if submission is None or login is None or verdict.reply is not SENDER_OK:
            return verdict
        try:
            return submission.judge_sender(login, submission.qualified(verdict.address))
        except QmError as error:
            return Verdict(TROUBLE, failure(error).why)

    def qualified(self, recipient: bytes) -> bytes:
        return recipient if self._submission is None else self._submission.qualified(recipient)

    def editor(self, transaction: Transaction, queue: Queue) -> Editor | Verdict | None:
        """What changes a message of our users on its way, or a verdict if they may not send it; raises QmError."""
        submission, login = self._submission, self.peer.login
        if submission is None or login is None:
            return None
        verdict, notice = submission.judge_start(login, transaction.recipients)
        if notice:
            message = queue.begin(NO_TRACE)
            message.write(notice)
            message.commit(Envelope(b"", (Recipient(b"postmaster@" + self._rules.me),)))
        return submission.editor(login, transaction.mail) if verdict.reply is GO else verdict
