"""The envelope: who sent a message, who gets it, and what the sender asked for (RFC 5321 2.3.1, RFC 3461, RFC 8689).

On disk and on the queue's door it is a run of NUL-terminated records of one letter each, in this order::

    u uid  p pid  b birth_ns  i client address  P protocol  8  U  Q  q  H limit  L login  R RET  V ENVID
    F sender
    { N NOTIFY  O ORCPT  T recipient }

u, p and b are the queue's own: `encode` writes them when they are known and `decode` takes their absence for an
envelope that no queue has seen yet.  Addresses are bytes without NUL, of at most ADDRESS_MAX bytes; everything else is
a word without spaces and control characters, since it ends up in log lines, reports and SMTP commands.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.wire.record import Malformed, number

ADDRESS_MAX: Final = 1000  # bytes; qmail.md section 5 has 1002
RECIPIENTS_MAX: Final = 100_000  # of one message; bounds what a reader holds
ENVELOPE_MAX: Final = 16 * 1024 * 1024  # bytes of all records; 160 for each of RECIPIENTS_MAX


# RFC 8689: what a delivery's flag says, and QMTLS in the environment of a program
TLS_WORDS: Final = {b"Q": b"required", b"q": b"optional"}

_NO_WORD: Final = re.compile(rb"[\x00-\x20\x7f]")


class AddressTooLong(Malformed):
    """An address over ADDRESS_MAX: qm-queue's exit 11."""


class Recipient(NamedTuple):
    address: bytes
    notify: bytes = b""  # RFC 3461 4.1: NEVER, or SUCCESS,FAILURE,DELAY in the sender's order; empty: not said
    orcpt: bytes = b""  # RFC 3461 4.2, as given: type;xtext


class Envelope(NamedTuple):
    sender: bytes  # empty: the null reverse-path; #@[]: a double bounce's
    recipients: tuple[Recipient, ...]
    client: bytes = b""  # the peer's address in text, empty for local mail
    protocol: bytes = b"local"  # RFC 3848 keyword for network mail
    eight_bit: bool = False  # BODY=8BITMIME was given
    smtputf8: bool = False
    ret: bytes = b""  # RFC 3461 4.3: FULL or HDRS
    envid: bytes = b""  # RFC 3461 4.4, xtext as given
    uid: int = -1  # of the process that handed the message in; -1: not stamped yet
    pid: int = -1
    born_ns: int = 0
    requiretls: bool = False  # RFC 8689 2: never in clear, never to a server that nobody vouches for
    tlsoptional: bool = False  # RFC 8689 3, TLS-Required: No; means nothing beside requiretls
    held: bytes = b""  # the limit that its login had reached: not delivered until somebody releases it
    login: bytes = b""  # whose, of one that is held


def tls_flag(envelope: Envelope) -> bytes:
    """The key of TLS_WORDS, or nothing; a requirement outranks what a header says (RFC 8689 3)."""
    return b"Q" if envelope.requiretls else b"q" if envelope.tlsoptional else b""


def _address(field: bytes) -> bytes:
    if len(field) > ADDRESS_MAX:
        raise AddressTooLong("address too long")
    return field


def _word(field: bytes) -> bytes:
    if _NO_WORD.search(field):
        raise Malformed("space or control character in an envelope")
    return field


def encode(envelope: Envelope) -> bytes:
    """The records of *envelope*; raises ValueError for a NUL in a field."""
    records = []
    if envelope.uid >= 0:
        records += [b"u%d" % envelope.uid, b"p%d" % envelope.pid, b"b%d" % envelope.born_ns]
    if envelope.client:
        records.append(b"i" + envelope.client)
    records.append(b"P" + envelope.protocol)
    if envelope.eight_bit:
        records.append(b"8")
    if envelope.smtputf8:
        records.append(b"U")
    if envelope.requiretls:
        records.append(b"Q")
    if envelope.tlsoptional:
        records.append(b"q")
    if envelope.held:
        records += [b"H" + envelope.held, b"L" + envelope.login]
    if envelope.ret:
        records.append(b"R" + envelope.ret)
    if envelope.envid:
        records.append(b"V" + envelope.envid)
    records.append(b"F" + _address(envelope.sender))
    for recipient in envelope.recipients:
        if recipient.notify:
            records.append(b"N" + recipient.notify)
        if recipient.orcpt:
            records.append(b"O" + recipient.orcpt)
        records.append(b"T" + _address(recipient.address))
    text = b"\0".join(records) + b"\0"
    if text.count(b"\0") != len(records):
        raise ValueError("NUL in an envelope's field")
    return text


_FIELDS: Final = {b"i": "client", b"P": "protocol", b"H": "held", b"L": "login", b"R": "ret", b"V": "envid"}
_NUMBERS: Final = {b"u": "uid", b"p": "pid", b"b": "born_ns"}
_FLAGS: Final = {b"8": "eight_bit", b"U": "smtputf8", b"Q": "requiretls", b"q": "tlsoptional"}


def _recipients(records: Iterator[bytes]) -> Iterator[Recipient]:
    notify = orcpt = b""
    for record in records:
        letter, rest = record[:1], record[1:]
        if letter == b"T":
            yield Recipient(_address(rest), notify, orcpt)
            notify = orcpt = b""
        elif letter == b"N":
            notify = _word(rest)
        elif letter == b"O":
            orcpt = _word(rest)
        else:
            raise Malformed("unknown record among the recipients")
    if notify or orcpt:
        raise Malformed("NOTIFY or ORCPT without a recipient")


def _plain(records: list[bytes]) -> tuple[Recipient, ...] | None:
    """Recipients of whom nothing is said but their address, as most are: few calls each; None for any others."""
    addresses = [record[1:] for record in records if record[:1] == b"T"]
    if len(addresses) != len(records):
        return None
    if max(map(len, addresses), default=0) > ADDRESS_MAX:
        raise AddressTooLong("address too long")
    return tuple(map(Recipient, addresses))


def decode(text: bytes) -> Envelope:
    """The envelope that *text* holds; raises Malformed (AddressTooLong for that) for anything else."""
    if not text.endswith(b"\0"):
        raise Malformed("envelope without its last NUL")
    if text.count(b"\0T") > RECIPIENTS_MAX:
        raise Malformed("too many recipients")
    records = iter(text[:-1].split(b"\0"))
    known: dict[str, bytes | int | bool] = {}
    for record in records:
        letter, rest = record[:1], record[1:]
        if letter == b"F":
            sender = _address(rest)
            break
        if letter in _FIELDS:
            known[_FIELDS[letter]] = _word(rest)
        elif letter in _NUMBERS:
            known[_NUMBERS[letter]] = number(rest, 1 << 63)
        elif letter in _FLAGS and not rest:
            known[_FLAGS[letter]] = True
        else:
            raise Malformed("unknown record in an envelope")
    else:
        raise Malformed("envelope without a sender")
    theirs = list(records)
    recipients = _plain(theirs)
    if recipients is None:
        recipients = tuple(_recipients(iter(theirs)))
    return Envelope(sender, recipients, **known)  # type: ignore[arg-type]
