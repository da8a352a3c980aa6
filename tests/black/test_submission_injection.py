"""CR, LF, NUL and blanks where they do not belong: in a login, in parameters, in addresses that are completed."""

import base64
from collections.abc import Callable

import pytest

from tests.harness.submitting import ANN, BOB, Raw, fields
from tests.harness.suite import DOMAIN, Suite

EVIL = (b"\r\nX-Evil: 1", b"\nX-Evil: 1", b"\rX-Evil: 1", b"\0X-Evil: 1", b" X-Evil: 1", b"\r\n.\r\nMAIL FROM:<>\r\n")


@pytest.fixture
def suite(make_suite: Callable[[], Suite]) -> Suite:
    made = make_suite()
    made.control("maxerrors", "0\n")
    made.control("authfaildelay", "0\n")
    made.add_user("bob", "secret two")
    return made.start()


def test_identities(suite: Suite) -> None:
    """No name that a client logs in with, or claims to act for, is more than a wrong name; the log keeps its lines."""
    with Raw(suite, b"") as session:
        for evil in EVIL:
            for identity in (b"ann" + evil + b"\0ann\0secret", b"\0ann" + evil + b"\0secret", b"\0ann\0secret" + evil):
                assert session.auth(identity) in (501, 535), identity
            assert session.say(b"AUTH LOGIN\r\n") == 334
            code = session.say(base64.b64encode(b"ann" + evil) + b"\r\n")
            assert (session.say(base64.b64encode(b"secret") + b"\r\n") if code == 334 else code) in (501, 535)
        assert session.say(b"MAIL FROM:<ann>\r\n") == 530
    suite.wait_for_log("end how=")
    assert not [line for line in suite.log().splitlines() if line.lstrip().startswith("X-Evil")]
    assert "\0" not in suite.log() and "\r" not in suite.log()


@pytest.mark.parametrize("byte", [b"\r", b"\0", b"\x0b"])
def test_parameters(suite: Suite, byte: bytes) -> None:
    """A control byte in a command is refused whole: it reaches neither envelope nor log nor the next host."""
    with Raw(suite) as session:
        for command in (
            b"MAIL FROM:<%b> ENVID=a%bb", b"MAIL FROM:<%b> AUTH=a%bb", b"MAIL FROM:<%b%b>", b"MAIL FROM:<%b>%bSIZE=1",
        ):  # fmt: skip
            assert session.say(command % (ANN.encode(), byte) + b"\r\n") in (501, 553), command
        assert session.say(b"MAIL FROM:<%b> ENVID=a+0D+0AX-Evil:1\r\n" % ANN.encode()) == 250
        assert session.say(b"RCPT TO:<%b> ORCPT=rfc822;a%bb\r\n" % (BOB.encode(), byte)) == 501
        assert session.say(b"RCPT TO:<%b%b>\r\n" % (BOB.encode(), byte)) in (501, 553)


def test_completion(suite: Suite) -> None:
    """What is put into a header is one field a line, whatever the envelope and the other fields are like."""
    evil = b'"a\\\r\nX-Evil: 1"'
    with Raw(suite) as session:
        assert session.say(b"MAIL FROM:<" + evil + b">\r\n") >= 500
        session.say(b"RSET\r\n")
    with Raw(suite) as session:
        assert session.message(b'To: bob,\r\n "x\\\ny" <bob>\r\n\r\nx') in (0, 554)
    with Raw(suite) as session:
        assert session.message(b"To: bob, (a\r\n X-Evil: 1\r\n ) bob\r\nCc: carl\r\nSubject: s\r\n\r\nx") == 250
    (mail,) = suite.wait_for_mail(1, "bob")
    assert fields(mail, b"X-Evil") == []
    for name in (b"From", b"Date", b"Message-ID"):
        assert len(fields(mail, name)) == 1, mail
    assert fields(mail, b"Cc") == [b"carl@" + DOMAIN.encode()]
