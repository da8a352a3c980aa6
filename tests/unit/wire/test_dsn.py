"""Delivery reports, read by programs that others wrote."""

import email
import email.policy

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import dsn
from qm.wire.dsn import Action, Report, Told

MESSAGE = b"Received: x\nSubject: hello\n\nbody\n"


def _report(*recipients: Told, double: bool = False, whole: bool = True, envid: bytes = b"") -> Report:
    return Report(
        host=b"mx.example",
        sender=b"MAILER-DAEMON@mx.example",
        to=b"alice@example.org",
        date=b"Tue, 24 Nov 2026 03:40:36 -0000",
        arrived=b"Mon, 23 Nov 2026 03:40:36 -0000",
        recipients=recipients,
        envid=envid,
        return_path=b"alice@example.org",
        boundary=b"ID.0123456789abcdef",
        double=double,
        eight_bit=False,
        whole=whole,
    )


def _text(report: Report) -> bytes:
    return dsn.head(report) + MESSAGE + dsn.tail(report)


FAILED = Told(b"bob@dest.example", Action.FAILED, b"Sorry, no mailbox here by that name. (#5.1.1)\n")


def test_others_find_the_failed_recipient() -> None:
    """flufl.bounce reads the report as a permanent failure of the right address."""
    temporary, permanent = all_failures(email.message_from_bytes(_text(_report(FAILED))))
    assert set(permanent) == {b"bob@dest.example"}
    assert not temporary


def test_others_find_the_delayed_recipient() -> None:
    """A delay warning is a temporary failure to flufl.bounce."""
    late = FAILED._replace(action=Action.DELAYED, text=b"busy (#4.2.1)\n", retry_until=b"Tue, 1 Dec 2026 00:00:00 -0000")
    temporary, permanent = all_failures(email.message_from_bytes(_text(_report(late))))
    assert set(temporary) == {b"bob@dest.example"}
    assert not permanent


def test_the_parts_are_those_of_rfc_3464() -> None:
    """A text for people that QSBMF readers know, the fields, the message."""
    told = FAILED._replace(
        mta=b"mx.dest.example", diagnostic=b"550 5.1.1 no such user", status=b"5.1.1", orcpt=b"rfc822;bob@old.example"
    )
    report = email.message_from_bytes(_text(_report(told, envid=b"QQ314159")), policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"
    text, status, original = report.iter_parts()
    assert text.get_content().startswith("Hi. This is the")
    assert "--- Below this line is a copy of the message." in text.get_content()
    fields, recipient = status.get_payload()
    assert fields["Reporting-MTA"] == "dns;mx.example"
    assert fields["Original-Envelope-Id"] == "QQ314159"
    assert fields["Arrival-Date"] == "Mon, 23 Nov 2026 03:40:36 -0000"
    assert recipient["Original-Recipient"] == "rfc822;bob@old.example"
    assert recipient["Final-Recipient"] == "rfc822;bob@dest.example"
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Remote-MTA"] == "dns;mx.dest.example"
    assert recipient["Diagnostic-Code"] == "smtp;550 5.1.1 no such user"
    assert original.get_payload()[0]["Subject"] == "hello"


def test_a_paragraph_has_no_blank_line() -> None:
    """The second of two adjacent line ends becomes a slash (qmail.md 7.10, 29)."""
    told = Told(b"u@d", Action.FAILED, b"Sorry.\n\nmore")
    assert b"<u@d>:\nSorry.\n/more\n\n" in dsn.head(_report(told))


@pytest.mark.parametrize("action", list(Action))
def test_the_status_has_the_class_of_its_action(action: Action) -> None:
    """A status never contradicts what happened (RFC 3463 2)."""
    told = Told(b"u@d", action, b"odd (#2.0.0) text 4.7.1")
    wanted = {Action.FAILED: b"5", Action.DELAYED: b"4"}.get(action, b"2")
    assert dsn.status(told)[:1] == wanted


@given(st.binary(max_size=300), st.binary(max_size=80).filter(lambda a: b"\0" not in a), st.binary(max_size=80))
def test_no_text_breaks_the_report(text: bytes, address: bytes, diagnostic: bytes) -> None:
    """Whatever a remote host said or an address holds, the report keeps its three parts and its header."""
    told = Told(address, Action.FAILED, text, b"", diagnostic[:20], diagnostic)
    report = _report(told)
    parsed = email.message_from_bytes(_text(report))
    assert parsed["To"] == "alice@example.org"
    assert [part.get_content_type() for part in parsed.get_payload()] == [
        "text/plain", "message/delivery-status", "message/rfc822",
    ]  # fmt: skip
