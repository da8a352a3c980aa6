"""What becomes of the header of a submitted message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.smtpd.header import Completer, Header, Stamp, Unfit
from qm.wire.rfc822 import HeaderReader
from tests.unit.smtpd.double import HOSTS

STAMP = Stamp(0, b"1.2.qm")
DATE = b"Date: Thu, 1 Jan 1970 00:00:00 -0000\n"
ID = b"Message-ID: <19700101000000.1.2.qm@id.example>\n"
WHOLE = b"Date: x\nMessage-ID: <x@y>\n"


def header(text: bytes, sender: bytes = b"ann@b.example") -> Header:
    reader = HeaderReader()
    reader.feed(text + b"\n")
    return Completer(HOSTS, sender, STAMP).header(reader.fields)


def test_what_is_missing() -> None:
    """Date, Message-ID and From are put before the rest, From with the sender of the envelope (RFC 6409 8)."""
    assert header(b"Subject: x\n") == Header(DATE + ID + b"From: ann@b.example\nSubject: x\n", (b"ann@b.example",))
    assert header(b"", b"an n@b.example").text == DATE + ID + b'From: "an n"@b.example\n'


def test_what_is_whole_stays_as_it_is() -> None:
    """A field that lacks nothing is not written again, odd as it may be: a client's signature stays good."""
    text = WHOLE + b"from :  Ann (me) <ann@b.example>\nTo: a@b.c,\n\t  b@b.c\nX: \xff\nReceived: y\n"
    assert header(text) == Header(text, (b"ann@b.example",))


def test_bare_names_are_completed() -> None:
    """Addresses without a host or a domain get the defaults, wherever they stand."""
    text = WHOLE + b"From: Ann <ann>\nTo: bob, c@host, d@plus+\nReply-To: ann\nX-Other: bob\n"
    want = b"From: Ann <ann@b.example>\nTo: bob@b.example, c@host.example, d@plus.plus.example\n"
    assert header(text) == Header(WHOLE + want + b"Reply-To: ann@b.example\nX-Other: bob\n", (b"ann@b.example",))


def test_what_is_taken_out() -> None:
    """Bcc and what belongs to an envelope is not for readers."""
    text = WHOLE + b"From: ann@b.example\nBCC: x@y\nResent-Bcc: x@y\nReturn-Path: <x@y>\nContent-Length: 5\n"
    assert header(text).text == WHOLE + b"From: ann@b.example\n"


@pytest.mark.parametrize(
    "to", [b"undisclosed-recipients:;", b"(((", b"a@b.c (", b'"x', b"a@b <", b"=?utf-8?q?x?= <x@y.z>"]
)
def test_recipients_are_not_judged(to: bytes) -> None:
    """A To that nobody understands is passed on as it is."""
    assert header(WHOLE + b"From: ann@b.example\nTo: " + to + b"\n").text.endswith(b"To: " + to + b"\n")


@pytest.mark.parametrize(
    ("text", "authors"),
    [
        (b"From: ann@b.example\nSender: bob@b.example\n", {b"ann@b.example", b"bob@b.example"}),
        (b"Sender: bob@b.example\n", {b"ann@b.example", b"bob@b.example"}),
        (b"From: ann@b.example, boss@x.example\n", {b"ann@b.example", b"boss@x.example"}),
        (b"From: us: ann@b.example, boss@x.example;\n", {b"ann@b.example", b"boss@x.example"}),
        (b"From: <boss@x.example> <ann@b.example>\n", {b"ann@b.example", b"boss@x.example"}),
        (b"From: boss@x.example ann@b.example\n", {b"ann@b.example", b"boss@x.example"}),
        (b"From: boss@x.example (ann@b.example)\n", {b"boss@x.example"}),
        (b"From: (boss@x.example) ann@b.example\n", {b"ann@b.example"}),
        (b'From: "boss@x.example" <ann@b.example>\n', {b"ann@b.example"}),
        (b"From: boss@x.example <ann@b.example>\n", {b"ann@b.example"}),
        (b"From: =?utf-8?q?boss=40x=2Eexample?=\n", {b"=?utf-8?q?boss=40x=2Eexample?=@b.example"}),
        (b"From: =?utf-8?q?boss?= <ann@b.example>\n", {b"ann@b.example"}),
        (b"From: <@ann@b.example:boss@x.example>\n", {b"boss@x.example"}),
        (b"From: ann@b.example\n (boss@x.example)\n ,boss@x.example\n", {b"ann@b.example", b"boss@x.example"}),
        (b"FROM : boss@x.example\n", {b"boss@x.example"}),
        (b'From: "ann@b.example"@x.example\n', {b"ann@b.example@x.example"}),
        (b"From: ann@b.example\nResent-From: boss@x.example\n", {b"ann@b.example", b"boss@x.example"}),
        (b"From: ann@b.example\nResent-Sender: boss@x.example\n", {b"ann@b.example", b"boss@x.example"}),
    ],
)
def test_who_it_is_from(text: bytes, authors: set[bytes]) -> None:
    """Every address that a reader may take for the author is one, however it is dressed up; a comment is not."""
    assert set(header(WHOLE + text).authors) == authors


@pytest.mark.parametrize(
    "text",
    [
        b"From: ann@b.example\nFrom: boss@x.example\n",
        b"From: ann@b.example\nfrom : ann@b.example\n",
        b"From: ann@b.example\nSender: ann@b.example\nSender: boss@x.example\n",
        b"From:\n",
        b"From: <>\n",
        b"From: us:;\n",
        b"From: (boss@x.example)\n",
        b"From: ann@b.example (boss@x.example\n",
        b'From: ann@b.example "\n',
        b"From: ann@b.example\0, boss@x.example\n",
        b"Sender: \nFrom: ann@b.example\n",
        b"From: <boss@x.example\n",
    ],
)
def test_refused(text: bytes) -> None:
    """A From or Sender that two readers may read in two ways is refused for good."""
    with pytest.raises(Unfit) as refused:
        header(WHOLE + text)
    assert refused.value.reply[:2] == (554, b"5.6.0")


def test_nobody() -> None:
    """Without From and without a sender nobody is the author."""
    with pytest.raises(Unfit):
        header(WHOLE, b"")


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"From: ",
                    b"Sender:",
                    b"ann@b.example",
                    b",",
                    b"<",
                    b">",
                    b"(",
                    b")",
                    b":",
                    b";",
                    b"\n",
                    b"\n ",
                    b'"',
                    b"\\",
                    b"@",
                ]
            ),
            st.binary(max_size=8),
        ),
        max_size=20,
    )
)
def test_any_header(parts: list[bytes]) -> None:
    """Any header is completed or refused; what comes out names its authors to the letter when it is read again."""
    try:
        first = header(b"".join(parts).replace(b"\r", b"") + b"\n")
    except Unfit:
        return
    reader = HeaderReader()
    reader.feed(first.text + b"\n")
    assert reader.over
    assert reader.body == b"\n"
    again = Completer(HOSTS, b"other@b.example", STAMP).header(reader.fields)
    assert set(again.authors) == set(first.authors)
    assert again.text == first.text
