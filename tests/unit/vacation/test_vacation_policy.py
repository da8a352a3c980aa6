"""Whom vacation answers, and with what (RFC 3834)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.vacation.policy import Reader, answer, objection
from qm.wire.rfc822 import Field, fields

ME = Reader([b"ann@a.example", b"Ann.Lee@old.example"], everything=False)
PERSON = b"joe@x.example"
NOW_S = 1795496436


def header(*lines: bytes) -> list[Field]:
    return fields([b"\n".join([*lines, b"", b""])])


def test_a_person() -> None:
    """A person who has written to the reader is answered, by whatever field and address of his, in any case."""
    for line in (
        b"To: ann@a.example",
        b"Cc: x@y, Ann <ANN@A.example>",
        b"Bcc: ann.lee@OLD.example",
        b"Resent-To: ann@a.example",
    ):
        assert objection(header(line), PERSON, ME) == ""
    assert objection(header(b"To: ann@a.example", b"Auto-Submitted: No (really)"), PERSON, ME) == ""
    assert objection(header(b"To: ann@a.example", b"Precedence: first-class"), PERSON, ME) == ""


@pytest.mark.parametrize(
    "sender",
    [
        b"",
        b"#@[]",
        b"MAILER-DAEMON@x",
        b"owner-list@x",
        b"list-owner@x",
        b"list-request@x",
        b"list-return-7-ann=a.example@x",
        b"bounces+123@x",
        b"list-bounces@x",
        b"noreply@x",
        b"no-reply@x",
        b"No-Reply+7@x",
        b"donotreply@x",
        b"do-not-reply@x",
        b"ann@a.example",
        b"ANN.lee@old.example",
        b"listserv@x",
        b"joe@x\nBcc: y",
    ],
)
def test_senders_that_are_no_persons(sender: bytes) -> None:
    """Nobody, programs, lists, and the reader himself are not answered (RFC 3834 2)."""
    assert objection(header(b"To: ann@a.example"), sender, ME)


@pytest.mark.parametrize(
    "line",
    [
        b"List-Id: <x>",
        b"List-Unsubscribe: <x>",
        b"LIST-post: NO",
        b"Precedence: bulk",
        b"Precedence:  List ",
        b"precedence: junk",
        b"Auto-Submitted: auto-replied",
        b"Auto-Submitted: auto-generated; x=y",
        b"Auto-Submitted:",
        b"X-Auto-Response-Suppress: DR, OOF",
        b"X-Auto-Response-Suppress: All",
        b"X-Spam-Flag: YES",
    ],
)
def test_headers_of_programs(line: bytes) -> None:
    """Lists, bulk mail, other automatic mail and spam are not answered, whatever the reader wants."""
    assert objection(header(b"To: ann@a.example", line), PERSON, ME)
    assert objection(header(b"To: ann@a.example", line), PERSON, ME._replace(everything=True))


@pytest.mark.parametrize(
    "line", [b"To: bob@a.example", b"X-To: ann@a.example", b"To: (ann@a.example", b"To: xann@a.example", b"Subject: x"]
)
def test_mail_that_does_not_name_the_reader(line: bytes) -> None:
    """Mail that came by a list or an alias is answered only if everything is (RFC 3834 2)."""
    assert objection(header(line), PERSON, ME)
    assert objection(header(line), PERSON, ME._replace(everything=True)) == ""


def _answer(text: bytes, *lines: bytes, sender: bytes = PERSON) -> tuple[dict[bytes, bytes], bytes]:
    """The answer's fields, with their values, and its body."""
    message = answer(header(*lines), sender, ME, text, NOW_S, 4711)
    found = {field.name: field.body.strip() for field in fields([message])}
    return found, message.partition(b"\n\n")[2]


def test_answer() -> None:
    """It goes to the sender, from the reader, names the message that it answers, and calls itself automatic."""
    found, body = _answer(b"I am away.", b"Subject: hi\n there", b"Message-ID: <m@x>", b"References: <a@x>\n <b@x>")
    assert found == {
        b"date": b"Tue, 24 Nov 2026 05:00:36 -0000",
        b"message-id": b"<20261124050036.4711.vacation@a.example>",
        b"to": b"<joe@x.example>",
        b"from": b"<ann@a.example>",
        b"subject": b"Auto: hi there",
        b"auto-submitted": b"auto-replied",
        b"in-reply-to": b"<m@x>",
        b"references": b"<a@x>\n <b@x>\n <m@x>",
    }
    assert body == b"I am away.\n"


def test_the_readers_own_header() -> None:
    """The text may bring Subject, From, Reply-To and MIME fields; with others it is all body."""
    found, body = _answer(b"Subject: away\nFrom: Ann Lee <ann@a.example>\n\nbye, $SUBJECT\n", b"Subject: hi")
    assert (found[b"subject"], found[b"from"], body) == (b"away", b"Ann Lee <ann@a.example>", b"bye, hi\n")
    text = b"Subject: away\nBcc: evil@x.example\n\nbye\n"
    found, body = _answer(text)
    assert (found[b"subject"], body) == (b"Auto:", text)
    assert b"bcc" not in found


def test_the_readers_language() -> None:
    """8-bit text is labelled, unless its own header does that."""
    found, _ = _answer("Grüße\n".encode())
    assert found[b"content-type"] == b"text/plain; charset=utf-8"
    assert found[b"content-transfer-encoding"] == b"8bit"
    assert _answer(b"Gr\xfc\xdfe\n")[0][b"content-type"] == b"text/plain; charset=unknown-8bit"
    found, _ = _answer("Subject: x\nContent-Type: text/plain; charset=utf-8\n\nGrüße\n".encode())
    assert found[b"content-type"] == b"text/plain; charset=utf-8"
    assert b"content-transfer-encoding" not in found


@given(st.lists(st.binary(max_size=60), max_size=5), st.binary(max_size=100))
def test_nobody_forges_an_answer(values: list[bytes], text: bytes) -> None:
    """Whatever the message says, the answer has one To, one Auto-Submitted, and no field that is not ours."""
    names = (b"Subject", b"Message-ID", b"References", b"In-Reply-To", b"To")
    lines = [field.text for name, value in zip(names, values, strict=False) for field in fields([name + b": " + value])]
    message = answer(fields(lines), PERSON, ME, b"x" + text.replace(b":", b""), NOW_S, 1)
    found = [field.name for field in fields([message])]
    assert set(found) <= set(
        b"date message-id to from subject auto-submitted in-reply-to references mime-version content-type"
        b" content-transfer-encoding".split()
    )
    assert len(set(found)) == len(found)
    assert max(map(len, message.partition(b"\n\n")[0].split(b"\n"))) <= 998
