"""Submission (RFC 6409): what a user of ours may send, under whose name, and how much.

A message streams through an Editor, which holds back its header, completes it and asks userd whose the addresses in it
are; the rest passes as it comes.
"""

import itertools
import os
import time
from typing import Final

from qm.smtpd.header import Completer, Stamp, Unfit
from qm.smtpd.login import Store
from qm.smtpd.policy import Verdict
from qm.smtpd.transaction import Hold, Transaction
from qm.wire import address, date, trace
from qm.wire.qualify import Hosts, complete
from qm.wire.rfc822 import HeaderReader, HeaderTooLong
from qm.wire.rfc822address import single
from qm.wire.rfc822token import Unparsable, value
from qm.wire.smtpevent import Mail
from qm.wire.smtpreply import SENDER_OK, TROUBLE, Reply
from qm.wire.userquery import Exists, Login
from qm.wire.userquery import Verdict as Answer

HEADER_MAX: Final = 256 * 1024  # bytes that are held back; 3000 recipients of 80 bytes

_NOT_YOURS: Final = Reply(553, b"5.7.1", b"that sender address is not yours")
_NOT_YOUR_FROM: Final = Reply(550, b"5.7.1", b"an address in From or Sender is not yours")
_LONG_HEADER: Final = Reply(552, b"5.3.4", b"the header is longer than %d bytes" % HEADER_MAX)
_NEEDS_UTF8: Final = Reply(550, b"5.6.7", b"a From or Sender in UTF-8 needs SMTPUTF8")  # RFC 6531 3.5
_NOTICE: Final = b"""\
The login %b has sent as much as it may in an hour (%b).
The message that was too much is from <%b>, and came from %b.

What this login sends in the rest of the hour is taken and held, not delivered:
control/limitheld messages at most, the others are deferred.  To look at what is
held, and to let it go or throw it away, as root:

    qm hold list
    qm hold show ID
    qm hold release ID ...
    qm hold delete ID ...

What is still held when its time in the queue is over goes back to its sender.
If somebody has stolen the password, change it; this is said once an hour.
"""

_count: Final = itertools.count()


class Editor:
    """One message on its way into the queue; text in, text out, with LF line ends.  Raises Unfit, Temporary."""

    def __init__(self, completer: Completer, store: Store, login: Login, mail: Mail) -> None:
        self._completer = completer
        self._store = store
        self._login = login
        self._mail = mail
        self._reader: HeaderReader | None = HeaderReader(HEADER_MAX)
        self.tlsoptional = False  # known once the header is

    def feed(self, text: bytes) -> bytes:
        reader = self._reader
        if reader is None:
            return text
        try:
            return self._edited(reader) if reader.feed(text) else b""
        except HeaderTooLong as error:
            raise Unfit(_LONG_HEADER, b"header") from error

    def end(self) -> bytes:
        """What is left when the message is over."""
        if self._reader is None:
            return b""
        self._reader.end()
        return self._edited(self._reader)

    def _edited(self, reader: HeaderReader) -> bytes:
        self._reader = None
        header = self._completer.header(reader.fields)
        for author in header.authors:
            if not (self._mail.smtputf8 or author.isascii()):
                raise Unfit(_NEEDS_UTF8, b"header:" + author)
            reply = _owned(self._store.sender(self._login, author), _NOT_YOUR_FROM)
            if reply is not None:
                raise Unfit(reply, b"header:" + author)
        self.tlsoptional = header.tlsoptional
        return header.text + reader.body


def _owned(answer: Exists, refusal: Reply) -> Reply | None:
    if answer.verdict is Answer.YES:
        return None
    return refusal if answer.verdict is Answer.NO else TROUBLE


class Submission:
    """The rules of one session."""

    def __init__(self, hosts: Hosts, store: Store, me: bytes) -> None:
        self._hosts = hosts
        self._store = store
        self._me = me

    def qualified(self, mailbox: bytes) -> bytes:
        """*mailbox* with the host or domain that it lacks (RFC 6409 4.2); postmaster needs none."""
        if not mailbox or mailbox.lower() == b"postmaster":
            return mailbox
        try:
            return value(complete(single(mailbox), self._hosts))
        except Unparsable:
            return mailbox

    def judge_sender(self, login: Login, sender: bytes) -> Verdict:
        """Whether *login* may send as *sender*; the null sender is anybody's (RFC 6409 6.1, RFC 8098)."""
        if not sender:
            return Verdict(SENDER_OK, b"ok", sender)
        reply = _owned(self._store.sender(login, sender), _NOT_YOURS)
        return Verdict(SENDER_OK, b"ok", sender) if reply is None else Verdict(reply, b"authsenders")

    def judge_start(self, login: Login, transaction: Transaction, ip: bytes) -> tuple[Hold | None, bytes]:
        """Why one more message of *login* is to be held, or None; and a notice for the postmaster, or b""."""
        domains = {address.split(recipient.address)[1] for recipient in transaction.recipients}
        spent = self._store.spend(login, len(transaction.recipients), domains)
        if spent.verdict is Answer.YES:
            return None, b""
        name = trace.safe(login.name).lower()
        limit = spent.text.partition(b":")[0].removeprefix(b"control/")
        notice = self._notice(name, spent.text, transaction.mail.sender, ip) if spent.first else b""
        return Hold(trace.safe(limit), name), notice

    def _notice(self, name: bytes, limit: bytes, sender: bytes, ip: bytes) -> bytes:
        now_s = int(time.time())
        head = (
            b"Date: %b\nMessage-ID: <%b.%b@%b>\nFrom: MAILER-DAEMON@%b\nTo: postmaster@%b\n"
            b"Subject: %b has reached a limit\n\n"
            % (date.rfc5322(now_s), date.compact(now_s), _unique(), self._me, self._me, self._me, name)
        )
        return head + _NOTICE % (name, limit, trace.safe(sender), trace.safe(ip))

    def editor(self, login: Login, mail: Mail) -> Editor:
        completer = Completer(self._hosts, mail.sender, Stamp(int(time.time()), _unique()))
        return Editor(completer, self._store, login, mail)


def _unique() -> bytes:
    return b"%d.%d.qm" % (os.getpid(), next(_count))
