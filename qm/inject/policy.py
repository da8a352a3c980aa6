"""What becomes of a header, and who gets the message: pure decisions of qmail.md 16.1.

`Composer` takes the fields as they come; what it makes of them is `Mail`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.errors import Permanent
from qm.inject import options as opt
from qm.inject.options import Options
from qm.wire import date
from qm.wire.envelope import Envelope, Recipient
from qm.wire.qualify import Hosts, host_tokens, rewriter
from qm.wire.rfc822 import Field, waives_tls
from qm.wire.rfc822address import AddressList, single
from qm.wire.rfc822token import AT, Token, Unparsable, comment, quoted, tokenise, unparse, value, written

_LISTED: Final = frozenset((b"to", b"cc"))
_RECIPIENTS: Final = frozenset((b"to", b"cc", b"bcc", b"apparently-to"))
_RESENT_RECIPIENTS: Final = frozenset((b"resent-to", b"resent-cc", b"resent-bcc"))
_SENDERS: Final = frozenset(
    b"sender from reply-to return-receipt-to errors-to resent-sender resent-from resent-reply-to return-path".split()
)
_REMOVED: Final = frozenset((b"bcc", b"resent-bcc", b"return-path", b"content-length"))
_DROPPED: Final = {b"from": opt.DROP_FROM, b"message-id": opt.DROP_MESSAGE_ID, b"return-path": opt.DROP_RETURN_PATH}
_MAKES_RESENT: Final = frozenset(
    b"resent-sender resent-from resent-reply-to resent-to resent-cc resent-bcc resent-date resent-message-id".split()
)
_VERP: Final = b"-@[]"  # send puts the recipient in its place


class Moment(NamedTuple):
    """What makes a message unlike any other."""

    now_s: int
    pid: int


class Mail(NamedTuple):
    header: bytes
    envelope: Envelope
    complaints: tuple[str, ...]  # what the caller should know, though it is done


class Composer:
    def __init__(self, options: Options, hosts: Hosts, lists: frozenset[bytes], moment: Moment) -> None:
        """*lists*: the mailing lists that Mail-Followup-To is for, in lower case.  Raises Permanent."""
        self._options = options
        self._hosts = hosts
        self._rewrite = rewriter(hosts)
        self._lists = lists
        self._moment = moment
        self._seen: set[bytes] = set()
        self._kept: list[bytes] = []  # fields
        self._listed: list[list[Token]] = []  # in To and Cc, as they were met
        self._recipients: list[bytes] = []  # of the header
        self._resent_recipients: list[bytes] = []
        self._complaints: list[str] = []
        self._sender = None if options.sender is None else value(self._argument(options.sender))
        self._arguments = [value(self._argument(word)) for word in options.recipients]

    def _argument(self, address: bytes) -> list[Token]:
        try:
            return self._rewrite(single(address))
        except Unparsable as error:
            shown = address.decode("utf-8", "backslashreplace")
            raise Permanent("unable to parse an address", detail=f"{shown}: {error}", status="1.3") from error

    def mail(self, fields: Sequence[Field]) -> Mail:
        """Raises Permanent for a field about the sender that cannot be parsed."""
        for field in fields:
            self._take(field)
        resent = not _MAKES_RESENT.isdisjoint(self._seen)
        sender = self._default_sender() if self._sender is None else self._sender
        recipients, complaints = self._arguments, self._complaints
        if self._options.from_header:
            recipients = recipients + (self._resent_recipients if resent else self._recipients)
            if complaints and not recipients:
                raise Permanent(complaints[0], status="1.3")
        notify, ret, envid = self._options.reports
        to = tuple(Recipient(address, notify) for address in recipients)
        envelope = Envelope(sender, to, ret=ret, envid=envid, tlsoptional=waives_tls(fields))
        header = b"".join([*self._generated(resent), *self._kept])
        return Mail(header, envelope, tuple(complaints) if self._options.from_header else ())

    def _take(self, field: Field) -> None:
        letter = _DROPPED.get(field.name)
        if letter and letter in self._options.letters:
            return
        self._seen.add(field.name)
        text = self._rewritten(field)
        if field.name not in _REMOVED:
            self._kept.append(text)

    def _rewritten(self, field: Field) -> bytes:
        if field.name in _SENDERS:
            try:
                return self._rewritten_senders(field)
            except Unparsable as error:
                shown = field.text[:200].decode("latin-1").strip()
                raise Permanent("unable to parse this line", detail=f"{shown}: {error}", status="1.7") from error
        if field.name in _RECIPIENTS or field.name in _RESENT_RECIPIENTS:
            return self._rewritten_recipients(field)
        return field.text

    def _rewritten_senders(self, field: Field) -> bytes:
        one_pass = AddressList(self._rewrite)
        text = unparse(_name(field), one_pass.run(tokenise(field.body)))
        if field.name == b"return-path" and self._sender is None and one_pass.found:
            sender = value(one_pass.found[0])
            self._sender = sender + _VERP if sender and opt.VERP in self._options.letters else sender
        return text

    def _rewritten_recipients(self, field: Field) -> bytes:
        """A field that cannot be parsed stays; what was met before the bad place counts, as in notqmail 1.09."""
        one_pass = AddressList(self._rewrite)
        try:
            text = unparse(_name(field), one_pass.run(tokenise(field.body)))
        except Unparsable as error:
            text = field.text
            self._complaints.append(f"unable to parse the recipients of {_name(field).decode('ascii')}: {error}")
        if field.name in _LISTED:
            self._listed += one_pass.found
        into = self._resent_recipients if field.name in _RESENT_RECIPIENTS else self._recipients
        into += map(value, one_pass.found)
        return text

    def _default_sender(self) -> bytes:
        who, letters = self._options.who, self._options.letters
        user = who.sender_user
        if opt.VERP_MESSAGE in letters:
            user += b"-%d.%d" % self._moment
        if opt.VERP in letters:
            user += b"-"
        sender = value(self._rewrite(self._mailbox(user, who.sender_host)))
        return sender + _VERP if opt.VERP in letters else sender

    def _mailbox(self, user: bytes, host: bytes) -> list[Token]:
        """The address of the environment's words; raises Permanent."""
        try:
            local = single(user + b"@")[:-1]
            return [*local, AT, *host_tokens(host)] if host else local
        except Unparsable as error:
            raise Permanent("the environment names a host that is none", detail=f"{error}", status="1.7") from error

    def _generated(self, resent: bool) -> list[bytes]:
        """The fields that are missing, in qmail's order."""
        prefix, seen = (b"Resent-" if resent else b""), self._seen
        made = []
        if (prefix + b"Date").lower() not in seen:
            made.append(prefix + b"Date: " + date.rfc5322(self._moment.now_s) + b"\n")
        if (prefix + b"Message-ID").lower() not in seen:
            name = b"%b.%d.qmail@%b" % (date.compact(self._moment.now_s), self._moment.pid, self._hosts.id_host)
            made.append(prefix + b"Message-ID: <" + name + b">\n")
        if (prefix + b"From").lower() not in seen:
            made.append(unparse(prefix + b"From", self._author()))
        if not {(prefix + b"To").lower(), (prefix + b"Cc").lower()} & seen:
            made.append(prefix + b"Cc: recipient list not shown: ;\n")
        if not resent and b"mail-followup-to" not in seen:
            made += self._followup_to()
        return made

    def _author(self) -> list[Token]:
        who = self._options.who
        mailbox = self._rewrite(self._mailbox(who.user, who.host))
        if not who.name:
            return mailbox
        if opt.NAME_AS_COMMENT in self._options.letters:
            return [*mailbox, comment(who.name)]
        left, right = (Token(mark, mark, mark) for mark in (b"<", b">"))
        return [quoted(who.name), left, *mailbox, right]

    def _followup_to(self) -> list[bytes]:
        if self._lists.isdisjoint(value(address).lower() for address in self._listed):
            return []
        addresses = [b"".join(written(address)) for address in reversed(self._listed) if address]
        return [b"Mail-Followup-To: " + b",\n  ".join(addresses) + b"\n"]


def _name(field: Field) -> bytes:
    """The field's name as it was written."""
    return field.text[: len(field.name)]
