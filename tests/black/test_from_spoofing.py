"""A user who writes in another's name: every way to spell it that a header has (RFC 6409 6.1, RFC 5322 3.6.2)."""

from collections.abc import Callable

import pytest

from tests.harness.submitting import ANN, BOB, Raw, fields
from tests.harness.suite import DOMAIN, Suite

OTHER = b"boss@" + DOMAIN.encode()
MINE = ANN.encode()

REFUSED = {
    "another's": b"From: " + OTHER,
    "two fields": b"From: " + MINE + b"\r\nFrom: " + OTHER,
    "two fields, another first": b"From: " + OTHER + b"\r\nFrom: " + MINE,
    "upper case": b"FROM: " + OTHER,
    "blank before the colon": b"From : " + OTHER,
    "tab before the colon": b"From\t: " + OTHER,
    "two with a blank": b"From: " + MINE + b"\r\nFrom : " + OTHER,
    "folded": b"From:\r\n " + OTHER,
    "folded twice": b"From:\r\n \r\n " + OTHER,
    "two mailboxes": b"From: " + MINE + b", " + OTHER,
    "mine as a name": b'From: "' + MINE + b'" <' + OTHER + b">",
    "mine as a comment": b"From: " + OTHER + b" (" + MINE + b")",
    "mine in a comment before": b"From: (" + MINE + b") " + OTHER,
    "a comment inside": b"From: boss(x)@(y)" + DOMAIN.encode(),
    "a nested comment": b"From: <" + OTHER + b" (a (b) " + MINE + b")>",
    "mine quoted in the local part": b'From: "' + MINE + b'"@elsewhere.example',
    "group": b"From: all: " + MINE + b", " + OTHER + b";",
    "empty group": b"From: nobody:;",
    "group and another": b"From: all: " + MINE + b";, " + OTHER,
    "route": b"From: <@" + DOMAIN.encode() + b":" + OTHER + b">",
    "two angles": b"From: <" + MINE + b"> <" + OTHER + b">",
    "angle in angle": b"From: <<" + MINE + b">" + OTHER + b">",
    "encoded word as the address": b"From: =?utf-8?q?boss=40test=2Eexample?=",
    "encoded word before it": b"From: =?utf-8?q?=3Cann=40test=2Eexample=3E?= <" + OTHER + b">",
    "quoted pair": b'From: "b\\oss"@' + DOMAIN.encode(),
    "no address": b"From: ",
    "only a comment": b"From: (" + MINE + b")",
    "sender": b"From: " + MINE + b"\r\nSender: " + OTHER,
    "two senders": b"From: " + MINE + b"\r\nSender: " + MINE + b"\r\nSender: " + OTHER,
    "resent-from": b"From: " + MINE + b"\r\nResent-From: " + OTHER,
    "resent-sender": b"From: " + MINE + b"\r\nResent-Sender: " + OTHER,
    "second resent-from": b"From: " + MINE + b"\r\nResent-From: " + MINE + b"\r\nResent-From: " + OTHER,
    "after all others": b"X: y\r\n" * 500 + b"From: " + OTHER,
    "subdomain": b"From: ann@x." + DOMAIN.encode(),
    "trailing dot": b"From: boss@" + DOMAIN.encode() + b".",
    "semicolon": b"From: " + MINE + b"; " + OTHER,
    "percent": b"From: ann%" + DOMAIN.encode() + b"@elsewhere.example",
    "NUL": b"From: " + MINE + b"\0, " + OTHER,
    "high bytes": b"From: b\xf6ss@" + DOMAIN.encode(),
}
TAKEN = {
    "mine": b"From: " + MINE,
    "mine with a name": b'From: "Ann, the \\"boss\\"" <' + MINE + b">",
    "another's in a comment": b"From: " + MINE + b" (for " + OTHER + b")",
    "another's in an encoded word": b"From: =?utf-8?q?boss=40test=2Eexample?= <" + MINE + b">",
    "mine in capitals": b"From: ANN@TEST.EXAMPLE",
    "none": b"X: y",
}


@pytest.fixture
def suite(make_suite: Callable[[], Suite]) -> Suite:
    made = make_suite()
    made.control("maxerrors", "0\n")
    made.add_user("bob", "secret two")
    made.add_user("boss", "secret three")
    return made.start()


def test_from_spoofing(suite: Suite) -> None:
    """What a reader could take for another's address is refused; what is only his own is taken, and says so."""
    with Raw(suite) as session:
        codes = {name: session.message(header + b"\r\nSubject: x\r\n\r\nx") for name, header in REFUSED.items()}
        assert {name: code for name, code in codes.items() if code not in (550, 554)} == {}
        for name, header in TAKEN.items():
            assert session.message(header + b"\r\nSubject: x\r\n\r\nx") == 250, name
    mails = suite.wait_for_mail(len(TAKEN), "bob")
    assert len(mails) == len(TAKEN)
    assert all(len(fields(mail, b"From")) == 1 for mail in mails)


def test_the_envelope_sender(suite: Suite) -> None:
    """The sender of the envelope is the login's, however it is written; an alias is his only where it reaches him."""
    suite.dot_qmail("ann", "./Maildir/\n", "-news")
    with Raw(suite) as session:
        for sender, code in (
            (ANN, 250), (f"ann-news@{DOMAIN}", 250), (f"ANN@{DOMAIN.upper()}", 250), ("ann", 250),
            (f'"ann"@{DOMAIN}', 250), (BOB, 553), (f"ann-other@{DOMAIN}", 553), ("ann@elsewhere.example", 553),
            (f"postmaster@{DOMAIN}", 553), (f"ann%{DOMAIN}@elsewhere.example", 553),
        ):  # fmt: skip
            assert session.say(f"MAIL FROM:<{sender}>\r\n".encode()) == code, sender
            session.say(b"RSET\r\n")
        assert session.say(f"MAIL FROM:<@{DOMAIN}:{BOB}>\r\n".encode()) == 553
