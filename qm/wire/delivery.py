"""What send and rspawn say to each other: a Delivery goes out with the message's descriptor, an Outcome comes back.

Both are records (qm.wire.record) of one datagram, laid out in docs/INTERNALS.md 1.6.1.  A Delivery is one SMTP
transaction: one sender and some recipients of one destination.  Lists are joined by LF, so no address may hold one;
send refuses such addresses before.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from qm.wire.queueid import valid
from qm.wire.record import Malformed, number, pack, unpack

NUMBER_MAX: Final = (1 << 63) - 1
RECIPIENTS_MAX: Final = 200  # of one delivery; control/maxrcptperdelivery is the real limit
WEIGHT_MAX: Final = 40_000  # bytes; the sum of `weight` over one delivery's recipients
DELIVERY_MAX: Final = 45_000  # bytes of a packed Delivery; below RECORD_MAX, since rspawn adds to it
OUTCOME_MAX: Final = 50_000  # bytes of a packed Outcome
TEXT_MAX: Final = 6000  # bytes of one result's text
DIAGNOSTIC_MAX: Final = 1000  # bytes
MTA_MAX: Final = 255  # bytes
FLAGS: Final = b"d8U"
_DELIVERY_FIELDS: Final = 11
_FOLLOWER: Final = re.compile(rb"(?:\d{1,10}\.\d{1,10})?")
_RESULT_FIELDS: Final = 6


class Addressee(NamedTuple):
    """One recipient; *position* is its place in the message's envelope, and means something to send only."""

    position: int
    address: bytes
    notify: bytes = b""  # RFC 3461 4.1, as in the envelope
    orcpt: bytes = b""  # RFC 3461 4.2


class Delivery(NamedTuple):
    number: int
    id: bytes
    flags: bytes  # of b"d": possible duplicate, b"8": 8BITMIME, b"U": SMTPUTF8 was asked for
    sender: bytes  # VERP already expanded
    recipients: tuple[Addressee, ...]  # at least one
    ret: bytes = b""  # RFC 3461 4.3
    envid: bytes = b""  # RFC 3461 4.4
    follower: bytes = b""  # uid.pid of who wants to see the dialogue (sendmail -v)


class Health(Enum):
    """What a delivery has taught about its destination as a whole."""

    UNKNOWN = b""  # nothing: our own trouble, or a domain that does not exist
    UP = b"up"  # a server talked with us to the end of the transaction, whatever it said about the mail
    BUSY = b"busy"  # it did not serve us: 4xx greeting, 421, session lost, DNS failure: fewer deliveries at once
    SHUT = b"shut"  # it refuses us, whatever the mail is: to be left alone at once
    DEAD = b"dead"  # not one of its addresses could be connected to: worth remembering


class Result(NamedTuple):
    """What became of one recipient."""

    letter: bytes  # K delivered, Z temporary, D permanent failure
    text: bytes  # for log and bounce: printable ASCII, lines ended by LF
    status: bytes = b""  # RFC 3463, as 5.1.1
    mta: bytes = b""  # RFC 3464 2.3.5 Remote-MTA, a host name or [address]; b"": nobody answered
    diagnostic: bytes = b""  # RFC 3464 2.3.6: its reply on one line, as ``550 5.1.1 no such user``; empty: none
    dsn: bool = False  # NOTIFY and the rest were passed on, so reports of success are the next host's


class Outcome(NamedTuple):
    """*results* are in the order of the delivery's recipients, one each."""

    number: int
    health: Health
    results: tuple[Result, ...]


def weight(recipient: Addressee) -> int:
    """Bytes that *recipient* takes in a record, at most."""
    return len(recipient.address) + len(recipient.notify) + len(recipient.orcpt) + 24


def _lines(items: Sequence[bytes]) -> bytes:
    text = b"\n".join(items)
    if text.count(b"\n") != len(items) - 1:
        raise ValueError("LF in an address or a parameter")
    return text


def pack_delivery(delivery: Delivery) -> bytes:
    """Raises ValueError for no recipients, a NUL or LF in a field, or over DELIVERY_MAX bytes."""
    if not delivery.recipients:
        raise ValueError("a delivery to nobody")
    positions, addresses, notifies, orcpts = zip(*delivery.recipients, strict=True)
    record = pack(
        b"%d" % delivery.number,
        delivery.id,
        b",".join([b"%d" % position for position in positions]),
        delivery.flags,
        delivery.sender,
        _lines(addresses),
        delivery.ret,
        delivery.envid,
        _lines(notifies),
        _lines(orcpts),
        delivery.follower,
    )
    if len(record) > DELIVERY_MAX:
        raise ValueError("a delivery of too many bytes")
    return record


def unpack_delivery(record: bytes) -> Delivery:
    """Raises Malformed for anything that pack_delivery does not make."""
    nr, name, positions, flags, sender, addresses, ret, envid, notifies, orcpts, follower = unpack(
        record, _DELIVERY_FIELDS
    )
    lists = (positions.split(b","), addresses.split(b"\n"), notifies.split(b"\n"), orcpts.split(b"\n"))
    count = len(lists[0])
    if count > RECIPIENTS_MAX or any(len(items) != count for items in lists):
        raise Malformed("a delivery whose lists differ in length")
    if not valid(name) or flags.strip(FLAGS) or not _FOLLOWER.fullmatch(follower):
        raise Malformed("a delivery with a bad ID, flag or follower")
    recipients = tuple([Addressee(number(position, NUMBER_MAX), *rest) for position, *rest in zip(*lists, strict=True)])
    return Delivery(number(nr, NUMBER_MAX), name, flags, sender, recipients, ret, envid, follower)


def pack_outcome(outcome: Outcome) -> bytes:
    """Texts are cut so that the record stays below OUTCOME_MAX; raises ValueError for a NUL in a field."""
    share = OUTCOME_MAX // max(1, len(outcome.results)) - 30
    text_max, mta_max = min(TEXT_MAX, share // 2), min(MTA_MAX, share // 4)
    diagnostic_max = min(DIAGNOSTIC_MAX, share // 4)
    fields = [b"%d" % outcome.number, outcome.health.value]
    for letter, text, status, mta, diagnostic, dsn in outcome.results:
        fields += [letter, text[:text_max], status, mta[:mta_max], diagnostic[:diagnostic_max], b"1" if dsn else b""]
    return pack(*fields)


def _result(letter: bytes, text: bytes, status: bytes, mta: bytes, diagnostic: bytes, dsn: bytes) -> Result:
    if letter not in (b"K", b"Z", b"D") or dsn not in (b"", b"1"):
        raise Malformed("a result without its letter")
    return Result(letter, text, status, mta, diagnostic, dsn == b"1")


def unpack_outcome(record: bytes) -> Outcome:
    """Raises Malformed for anything that pack_outcome does not make; the caller checks the number of results."""
    fields = record.split(b"\0")
    if len(fields) % _RESULT_FIELDS != 3 or fields.pop():
        raise Malformed("an outcome with fields missing")
    nr, health, *rest = fields
    try:
        known = Health(health)
    except ValueError as error:
        raise Malformed("an outcome with an unknown health") from error
    starts = range(0, len(rest), _RESULT_FIELDS)
    return Outcome(number(nr, NUMBER_MAX), known, tuple([_result(*rest[at : at + _RESULT_FIELDS]) for at in starts]))
