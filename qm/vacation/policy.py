"""Whom vacation answers, and with what (RFC 3834).

An answer goes to the envelope sender, from nobody, and only if a person seems to have written to this reader: no list,
no program, no other replier.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from qm.wire import date
from qm.wire.address import is_utf8, quote, split
from qm.wire.rfc822 import Field, HeaderReader, one_line
from qm.wire.rfc822address import addresses
from qm.wire.rfc822token import Unparsable

_SUBJECT_MAX: Final = 200  # bytes of it that are repeated
_ID_MAX: Final = 900  # bytes of a Message-ID; a line has at most 998 (RFC 5322 2.1.1)
_REFERENCES_MAX: Final = 2000  # bytes
_NOBODY: Final = (b"", b"#@[]")
_TO_ME: Final = frozenset(b"to cc bcc resent-to resent-cc resent-bcc".split())
_FROM_FILE: Final = frozenset(
    b"subject from reply-to mime-version content-type content-transfer-encoding content-language".split()
)
# RFC 3834 2, and what lists and machines of our days call themselves
_MACHINE: Final = re.compile(
    rb"owner-.*|.*-(?:owner|request|bounces?|return|errors)|.*-(?:return|bounces?)[-+].*|bounces?(?:[-+].*)?"
    rb"|mailer-daemon|postmaster|listserv|majordomo|do-?not-?reply|no-?reply(?:[-+].*)?|root|daemon",
    re.DOTALL,
)


class Reader(NamedTuple):
    """Who is away."""

    addresses: Sequence[bytes]  # the first is where answers come from
    everything: bool  # answer mail that does not name an address of his, too


def _value(field: Field) -> bytes:
    """The first word of its body, in lower case."""
    return field.body.partition(b";")[0].partition(b"(")[0].strip().lower()


def _is_mechanical(field: Field) -> str:
    """Why a message with this field is none that a person expects an answer to; empty: it may be."""
    value = _value(field)
    if field.name.startswith(b"list-"):
        return "it comes from a list"
    if field.name == b"precedence" and value in (b"bulk", b"junk", b"list"):
        return "its precedence says so"
    if field.name == b"auto-submitted" and value != b"no":  # RFC 3834 5
        return "a program has sent it"
    if field.name == b"x-auto-response-suppress" and re.search(rb"all|oof|autoreply", field.body.lower()):
        return "its sender wants no automatic answer"
    if field.name == b"x-spam-flag" and value == b"yes":
        return "it is spam"
    return ""


def _named(header: Iterable[Field]) -> set[bytes]:
    """Whom the header names as recipients, in lower case."""
    named: set[bytes] = set()
    for field in header:
        if field.name in _TO_ME:
            try:
                named.update(address.lower() for address in addresses(field.body))
            except Unparsable:
                pass  # what cannot be read names nobody
    return named


def objection(header: Sequence[Field], sender: bytes, reader: Reader) -> str:
    """Why this message gets no answer; empty if it may get one."""
    mine = {address.lower() for address in reader.addresses}
    if sender in _NOBODY or one_line(sender) != sender:
        return "it has no sender"
    if _MACHINE.fullmatch(split(sender)[0].lower()):
        return "its sender is no person"
    if sender.lower() in mine:
        return "it is from the reader"
    for field in header:
        if why := _is_mechanical(field):
            return why
    return "" if reader.everything or mine & _named(header) else "it does not name the reader"


def _body_of(header: Iterable[Field], name: bytes) -> bytes:
    return next((b" ".join(one_line(field.body).split()) for field in header if field.name == name), b"")


def _references(header: Sequence[Field]) -> list[bytes]:
    """RFC 5322 3.6.4."""
    message_id = _body_of(header, b"message-id")
    if not message_id or len(message_id) > _ID_MAX:
        return []
    earlier = _body_of(header, b"references") or _body_of(header, b"in-reply-to")
    kept = [word for word in earlier.split() if len(word) <= _ID_MAX] if len(earlier) <= _REFERENCES_MAX else []
    return [b"In-Reply-To: " + message_id, b"References: " + b"\n ".join([*kept, message_id])]


def _split_text(text: bytes) -> tuple[list[Field], bytes]:
    """The header that the reader's *text* may begin with, and the rest."""
    reader = HeaderReader()
    reader.feed(text)
    reader.end()
    if not reader.fields or any(field.name not in _FROM_FILE for field in reader.fields) or not reader.body:
        return [], text
    return reader.fields, reader.body[1:]


def _content(fields: Iterable[Field], text: bytes) -> list[bytes]:
    if text.isascii() or any(field.name == b"content-type" for field in fields):
        return []
    charset = b"utf-8" if is_utf8(text) else b"unknown-8bit"
    return [
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain; charset=" + charset,
        b"Content-Transfer-Encoding: 8bit",
    ]


def answer(header: Sequence[Field], sender: bytes, reader: Reader, text: bytes, now_s: int, pid: int) -> bytes:
    """The whole answer.  *text* is the reader's, at most some 100 kB, perhaps with a header of its own."""
    subject = _body_of(header, b"subject")[:_SUBJECT_MAX]
    own, body = _split_text(text.replace(b"\r\n", b"\n").replace(b"$SUBJECT", subject))
    names = {field.name for field in own}
    from_address = one_line(reader.addresses[0], b"_")
    lines = [
        b"Date: " + date.rfc5322(now_s),
        b"Message-ID: <%b.%d.vacation@%b>" % (date.compact(now_s), pid, split(from_address)[1]),
        b"To: <%b>" % quote(sender),
        *([] if b"from" in names else [b"From: <%b>" % quote(from_address)]),
        *([] if b"subject" in names else [b"Subject: Auto: " + subject]),  # RFC 3834 3.1.5
        b"Auto-Submitted: auto-replied",  # RFC 3834 3.1.7
        *_references(header),
        *_content(own, body),
        *(field.text.rstrip(b"\n") for field in own),
    ]
    return b"\n".join([*lines, b"", body if body.endswith(b"\n") else body + b"\n"])
