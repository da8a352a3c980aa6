"""The header of a message that one of our users submits: what it lacks is put in, as inject does (RFC 6409 8).

A field is kept as it came unless an address in it had to be completed, so that a signature of the client's stays good.
Bcc and what belongs to an envelope are taken out.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.wire import address, date
from qm.wire.qualify import Hosts, complete
from qm.wire.rfc822 import Field, waives_tls
from qm.wire.rfc822address import AddressList
from qm.wire.rfc822token import Token, Unparsable, tokenise, unparse, value
from qm.wire.smtpreply import Reply

_REMOVED: Final = frozenset((b"bcc", b"resent-bcc", b"return-path", b"content-length"))
_AUTHORS: Final = frozenset((b"from", b"sender", b"resent-from", b"resent-sender"))
_LISTS: Final = frozenset((b"to", b"cc", b"reply-to", b"resent-to", b"resent-cc", b"resent-reply-to"))
_ONCE: Final = frozenset((b"from", b"sender"))  # RFC 5322 3.6: else each reader sees another author


class Unfit(Exception):
    """A header that is not taken; *why* is for the log."""

    def __init__(self, reply: Reply, why: bytes) -> None:
        super().__init__(reply)
        self.reply = reply
        self.why = why


class Stamp(NamedTuple):
    """What makes a message unlike any other."""

    now_s: int
    unique: bytes  # in this second


class Header(NamedTuple):
    text: bytes
    authors: tuple[bytes, ...]  # who it says it is from, each once
    tlsoptional: bool = False  # RFC 8689 3


def _unfit(text: bytes, why: bytes) -> Unfit:
    return Unfit(Reply(554, b"5.6.0", text), why)


class Completer:
    def __init__(self, hosts: Hosts, sender: bytes, stamp: Stamp) -> None:
        """*sender* is the envelope's; it is the author where the header names none."""
        self._hosts = hosts
        self._sender = sender
        self._stamp = stamp
        self._changed = False

    def header(self, fields: Sequence[Field]) -> Header:
        """Raises Unfit."""
        seen: set[bytes] = set()
        kept: list[bytes] = []
        authors: dict[bytes, None] = {}
        for field in fields:
            if field.name in _ONCE and field.name in seen:
                raise _unfit(b"more than one From or Sender field", b"header:" + field.name)
            seen.add(field.name)
            if field.name in _AUTHORS:
                kept.append(self._author(field, authors))
            elif field.name in _LISTS:
                kept.append(self._list(field))
            elif field.name not in _REMOVED:
                kept.append(field.text)
        text = b"".join([*self._missing(seen, authors), *kept])
        return Header(text, tuple(authors), waives_tls(fields))

    def _author(self, field: Field, authors: dict[bytes, None]) -> bytes:
        try:
            found, text = self._completed(field)
        except Unparsable as error:
            raise _unfit(b"cannot read the addresses of From or Sender", str(error).encode()) from error
        if not found or not all(found):
            raise _unfit(b"a From or Sender field without an address", b"header:" + field.name)
        authors.update(dict.fromkeys(found))
        return text

    def _list(self, field: Field) -> bytes:
        try:
            return self._completed(field)[1]
        except Unparsable:
            return field.text

    def _completed(self, field: Field) -> tuple[list[bytes], bytes]:
        """The addresses in *field*, and it with them completed."""
        self._changed = False
        one_pass = AddressList(self._complete)
        tokens = one_pass.run(tokenise(field.body))
        name = field.text.partition(b":")[0].rstrip(b" \t")
        return list(map(value, one_pass.found)), unparse(name, tokens) if self._changed else field.text

    def _complete(self, tokens: list[Token]) -> list[Token]:
        completed = complete(tokens, self._hosts)
        self._changed = self._changed or value(completed) != value(tokens)
        return completed

    def _missing(self, seen: set[bytes], authors: dict[bytes, None]) -> list[bytes]:
        """Date, Message-ID and From, as far as there are none."""
        made = []
        if b"date" not in seen:
            made.append(b"Date: " + date.rfc5322(self._stamp.now_s) + b"\n")
        if b"message-id" not in seen:
            where = self._hosts.id_host
            made.append(b"Message-ID: <%b.%b@%b>\n" % (date.compact(self._stamp.now_s), self._stamp.unique, where))
        if b"from" not in seen:
            if not self._sender:
                raise _unfit(b"a message without a From field", b"header:from")
            authors[self._sender] = None
            made.append(b"From: " + address.quote(self._sender) + b"\n")
        return made
