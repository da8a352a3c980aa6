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


def _report(
    *recipients: Told, double: bool = False, whole: bool = True, envid: bytes = b"", smtputf8: bool = False
) -> Report:
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
        smtputf8=smtputf8,
        whole=whole,
    )


def _text(report: Report) -> bytes:
    return b"".join(dsn.head(report)) + MESSAGE + dsn.tail(report)


FAILED = Told(b"bob@dest.example", Action.FAILED, b"Sorry, no mailbox here by that name. (#5.1.1)\n")


def test_others_find_the_failed_recipient() -> None:
    """flufl.bounce reads the report as a permanent failure of the right address."""
    temporary, permanent = all_failures(email.message_from_bytes(_text(_report(FAILED))))
    assert set(permanent) == {b"bob@dest.example"}
    assert not temporary


def test_others_find_the_delayed_recipient() -> None:
    """A delay warning is a temporary failure to flufl.bounce."""
    until = b"Tue, 1 Dec 2026 00:00:00 -0000"
    late = FAILED._replace(action=Action.DELAYED, text=b"busy (#4.2.1)\n", retry_until=until)
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
    assert b"<u@d>:\nSorry.\n/more\n\n" in b"".join(dsn.head(_report(told)))


def test_success_is_no_failure() -> None:
    """No reader takes a report of success for a failure, one of QSBMF neither."""
    for action in (Action.DELIVERED, Action.RELAYED):
        text = _text(_report(FAILED._replace(action=action, text=b"1.2.3.4 accepted message.\n")))
        assert all_failures(email.message_from_bytes(text)) == (set(), set())
        assert b"Hi. This is the" not in text


def test_only_failures_begin_as_qsbmf_has_it() -> None:
    """Who counts bounces by the text's first words does not count a delay warning."""
    assert b"\n\nHi. This is the qm program" in _text(_report(FAILED))
    assert b"Hi. This is the" not in _text(_report(FAILED._replace(action=Action.DELAYED)))


def test_xtext_is_decoded() -> None:
    """ENVID and ORCPT are given back as the sender meant them (RFC 3461 6.3)."""
    text = _text(_report(FAILED._replace(orcpt=b"rfc822;a+2Bb+3Dc@d.example"), envid=b"QQ+2B1"))
    assert b"\nOriginal-Recipient: rfc822;a+b=c@d.example\n" in text
    assert b"\nOriginal-Envelope-Id: QQ+1\n" in text


def test_what_xtext_hides_breaks_nothing() -> None:
    """A line end in an ENVID or ORCPT is a blank; so no field can be made up."""
    text = _text(_report(FAILED._replace(orcpt=b"rfc822;a+0AAction:+20none@d+FF"), envid=b"Q+0D+0ASubject:+20x"))
    assert b"\nOriginal-Recipient: rfc822;a Action: none@d?\n" in text
    assert b"\nOriginal-Envelope-Id: Q Subject: x\n" in text


def test_utf8_addresses_are_told_in_ascii() -> None:
    """Final-Recipient of an address beyond ASCII has type utf-8 and is 7-bit; people see it as it is (RFC 6533 3)."""
    told = FAILED._replace(address="b\u00f6b+x@d\u00f6m.example".encode(), orcpt=b"utf-8;b\\x{F6}b@d.example")
    text = _text(_report(told, smtputf8=True))
    assert b"\nFinal-Recipient: utf-8;b\\x{F6}b\\x{2B}x@d\\x{F6}m.example\n" in text
    assert b"\nOriginal-Recipient: utf-8;b\\x{F6}b@d.example\n" in text
    assert "<b\u00f6b+x@d\u00f6m.example>:\n".encode() in text
    assert b"\nContent-Type: message/global\n" in text


def test_an_odd_address_is_quoted() -> None:
    """An address that is no dot-atom is told in the form that mail has it in (RFC 5321 4.1.2)."""
    text = _text(_report(FAILED._replace(address=b"joe; user@d.example")))
    assert b'\nFinal-Recipient: rfc822;"joe; user"@d.example\n' in text


def test_no_line_is_too_long() -> None:
    """Whatever was said, each line that we make fits into SMTP (RFC 5321 4.5.3.1.6)."""
    told = Told(b"u" * 900 + b"@d.example", Action.FAILED, b"x" * 5000, b"5.0.0", b"m" * 3000, b"550 " + b"y" * 3000)
    assert max(map(len, _text(_report(told)).split(b"\n"))) <= 998


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
