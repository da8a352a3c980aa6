"""SMTP smuggling (2023) by a user of ours and under TLS, where a header is held back and edited meanwhile."""

from collections.abc import Callable

import pytest

from tests.harness.submitting import ANN, BOB, Raw
from tests.harness.suite import DOMAIN, Suite

SECOND = f"MAIL FROM:<boss@{DOMAIN}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n".encode()
ENDS = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n\n.\r\n", b"\r\n.\0\r\n", b"\0\r.\r\n")


@pytest.fixture
def suite(make_suite: Callable[[], Suite]) -> Suite:
    made = make_suite()
    made.add_user("bob", "secret two")
    return made.start()


@pytest.mark.parametrize("place", ["header", "body", "chunk"])
def test_smuggling(suite: Suite, place: str) -> None:
    """An end that is none ends the session, or is text; nothing behind it is ever heard as a command."""
    for end in ENDS:
        begin = f"MAIL FROM:<{ANN}>\r\nRCPT TO:<{BOB}>\r\n".encode()
        text = b"Subject: first\r\n" + (b"" if place == "header" else b"\r\nx") + end + SECOND
        with Raw(suite) as session:
            if place == "chunk":
                data = begin + b"BDAT %d LAST\r\n" % len(text) + text
            else:
                data = begin + b"DATA\r\n" + text
            session.say(data + b"QUIT\r\n")
            codes = session.rest()
        assert codes.count(354) <= 1, (end, codes)
    suite.wait_until_idle()
    assert not [mail for mail in suite.mail("bob") if b"\nReturn-Path: <boss@" in b"\n" + mail]
    assert not [mail for mail in suite.mail("bob") if b"\nSubject: smuggled\n" in mail.partition(b"\n\n")[0]]


def test_behind_the_login(suite: Suite) -> None:
    """Commands that come with the login, before its answer, are judged after it, in order, and once."""
    with Raw(suite, b"") as session:
        session.say(b"AUTH PLAIN\r\nAGFubgBzZWNyZXQ=\r\nMAIL FROM:<boss@" + DOMAIN.encode() + b">\r\nQUIT\r\n")
        assert session.rest() == [235, 553, 221]
