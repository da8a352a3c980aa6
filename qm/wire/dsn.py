"""Delivery reports: what a sender is told of mail that failed, waits, or arrived (RFC 3464, RFC 3461 6).

A report is multipart/report of three parts: a text for people, which of failures begins as QSBMF readers expect
(qmail.md 7.11), the fields for programs, and the message or its header.  Everything that came from elsewhere is freed
of control characters and long lines, and what programs read is ASCII.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from qm.wire.address import quote

TEXT_MAX: Final = 2000  # bytes of one recipient's text in a report
FIELD_MAX: Final = 950  # bytes of a field's value; RFC 5322 2.1.1: 998 with its name
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]+")
_NO_ASCII: Final = re.compile(rb"[\x80-\xff]")
_BLANK_LINES: Final = re.compile(rb"\n\n")
_LONG_LINE: Final = re.compile(rb"[^\n]{%d}(?=[^\n])" % FIELD_MAX)
_XTEXT: Final = re.compile(rb"\+([0-9A-F]{2})")  # RFC 3461 4
_NO_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 3
_ENHANCED: Final = re.compile(rb"\b([245])\.(\d{1,3})\.(\d{1,3})\b")


class Action(Enum):
    FAILED = b"failed"
    DELAYED = b"delayed"
    DELIVERED = b"delivered"
    RELAYED = b"relayed"


class Told(NamedTuple):
    """One recipient of a report."""

    address: bytes  # as the sender knows it
    action: Action
    text: bytes  # what happened, as it was reported
    status: bytes = b""  # RFC 3463; empty: look for one in the text
    mta: bytes = b""  # the host that said so; empty: ourselves
    diagnostic: bytes = b""  # its reply
    orcpt: bytes = b""  # RFC 3461 4.2
    retry_until: bytes = b""  # a date, of DELAYED


class Report(NamedTuple):
    host: bytes  # who reports: control/bouncehost
    sender: bytes  # the From address, quoted
    to: bytes  # the To address, quoted
    date: bytes  # now, RFC 5322
    arrived: bytes  # when the message was taken in, RFC 5322
    recipients: Sequence[Told]
    envid: bytes
    return_path: bytes  # of the message, quoted
    boundary: bytes
    double: bool  # the message was itself a report
    smtputf8: bool  # the message needs it
    whole: bool  # the message follows, not only its header


def status(told: Told) -> bytes:
    """The enhanced code that *told*'s text names, in the class of its action (RFC 3463)."""
    wanted = {Action.FAILED: b"5", Action.DELAYED: b"4"}.get(told.action, b"2")
    found = _ENHANCED.search(told.status or told.text)
    if found and told.action in (Action.FAILED, Action.DELAYED):
        return b".".join((wanted, found[2], found[3]))
    return wanted + b".0.0"


def _paragraph(told: Told) -> bytes:
    """qmail.md 7.10: the address, what was said, no blank line within."""
    text = told.text[:TEXT_MAX].replace(b"\r", b"").replace(b"\0", b"?").rstrip(b"\n")
    while b"\n\n" in text:
        text = _BLANK_LINES.sub(b"\n/", text)
    return b"<%b>:\n%b\n\n" % (_CONTROL.sub(b"_", told.address), _LONG_LINE.sub(rb"\g<0>\n", text))


def _field(name: bytes, value: bytes) -> bytes:
    return name + b": " + _NO_ASCII.sub(b"?", _CONTROL.sub(b" ", value[:FIELD_MAX])) + b"\n"


def _unicode(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):X}}}"


def _final_recipient(address: bytes) -> bytes:
    """With its type; beyond ASCII as RFC 6533 3 has it for 7-bit reports, which every mail system carries."""
    address = quote(address)
    if address.isascii():
        return b"rfc822;" + address
    text = address.decode("utf-8", "replace")
    return b"utf-8;" + _NO_QCHAR.sub(_unicode, text).encode("ascii")


def decode_xtext(text: bytes) -> bytes:
    """What ENVID or ORCPT mean (RFC 3461 4); what is no xtext stays as it is."""
    return _XTEXT.sub(lambda match: bytes([int(match[1], 16)]), text)


def _original_recipient(orcpt: bytes) -> bytes:
    """RFC 3461 6.3: the address decoded; a utf-8 one keeps its own encoding (RFC 6533 3)."""
    kind, semicolon, address = orcpt.partition(b";")
    return orcpt if kind.lower() == b"utf-8" else kind + semicolon + decode_xtext(address)


def _recipient_fields(told: Told) -> bytes:
    fields = [b"\n"]
    if told.orcpt:
        fields.append(_field(b"Original-Recipient", _original_recipient(told.orcpt)))
    fields.append(_field(b"Final-Recipient", _final_recipient(told.address)))
    fields.append(_field(b"Action", told.action.value))
    fields.append(_field(b"Status", status(told)))
    if told.mta:
        fields.append(_field(b"Remote-MTA", b"dns;" + told.mta))
    if told.diagnostic:
        fields.append(_field(b"Diagnostic-Code", b"smtp;" + told.diagnostic))
    if told.retry_until:
        fields.append(_field(b"Will-Retry-Until", told.retry_until))
    return b"".join(fields)


_SUBJECT: Final = {
    Action.FAILED: b"failure notice",
    Action.DELAYED: b"delay notice",
    Action.DELIVERED: b"delivery notice",
    Action.RELAYED: b"delivery notice",
}
_INTRO: Final = {
    Action.FAILED: b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
    b"This is a permanent error; I've given up. Sorry it didn't work out.\n",
    Action.DELAYED: b"I haven't been able to deliver your message to the following addresses yet.\n"
    b"This is a warning only. You need not send it again; I go on trying.\n",
    Action.DELIVERED: b"Your message was delivered to the following addresses.\n",
    Action.RELAYED: b"Your message was passed on to the mail systems of the following addresses,\n"
    b"which don't report deliveries.\n",
}
_DOUBLE_INTRO: Final = b"I tried to deliver a bounce message to this address, but the bounce bounced!\n"


_EIGHT_BIT: Final = b"Content-Transfer-Encoding: 8bit"  # what the message is nobody has looked


def head(report: Report) -> Iterator[bytes]:
    """Everything of *report* before the message itself, in pieces: there may be many recipients."""
    yield b"\n".join(_opening(report))
    yield from map(_paragraph, report.recipients)
    yield b"\n".join(_between(report))
    yield from map(_recipient_fields, report.recipients)
    yield b"\n".join(_before_message(report))


def _opening(report: Report) -> list[bytes]:
    action = report.recipients[0].action
    return [
        b"Date: " + report.date,
        b"From: " + report.sender,
        b"To: " + report.to,
        b"Subject: " + _SUBJECT[action],
        b"Message-ID: <%b@%b>" % (report.boundary, report.host),
        b"Auto-Submitted: auto-replied",  # RFC 3834 5
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="%b"' % report.boundary,
        _EIGHT_BIT,
        b"",
        b"--" + report.boundary,
        b"Content-Type: text/plain; charset=utf-8",
        _EIGHT_BIT,
        b"",
        # QSBMF readers take what begins so for a failure, and nothing else must
        (b"Hi. This is the" if action is Action.FAILED else b"This is the") + b" qm program at %b." % report.host,
        _DOUBLE_INTRO if report.double else _INTRO[action],
        b"",
    ]


def _between(report: Report) -> list[bytes]:
    below = b"a copy of the message" if report.whole else b"the header of the message"
    return [
        b"--- Below this line is %b." % (b"the original bounce" if report.double else below),
        b"",
        b"--" + report.boundary,
        b"Content-Type: message/delivery-status",
        b"",
        _message_fields(report),
    ]


def _before_message(report: Report) -> list[bytes]:
    """RFC 6533 4: a message that may have a UTF-8 header is no message/rfc822."""
    if report.smtputf8:
        kind = b"message/global" if report.whole else b"message/global-headers"
    else:
        kind = b"message/rfc822" if report.whole else b"text/rfc822-headers"
    return [
        b"",
        b"--" + report.boundary,
        b"Content-Type: " + kind,
        _EIGHT_BIT,
        b"",
        b"Return-Path: <%b>" % _CONTROL.sub(b"_", report.return_path),
        b"",
    ]


def _message_fields(report: Report) -> bytes:
    fields = [_field(b"Original-Envelope-Id", decode_xtext(report.envid))] if report.envid else []
    fields.append(_field(b"Reporting-MTA", b"dns;" + report.host))
    fields.append(_field(b"Arrival-Date", report.arrived))
    return b"".join(fields)


def tail(report: Report) -> bytes:
    """Everything after the message; a line end comes first, since the message may lack its last."""
    return b"\n--%b--\n" % report.boundary
