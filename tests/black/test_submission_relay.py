"""Relay tricks: who has not logged in gets nothing relayed, who has sends in his own name only (RFC 5321 3.6.1)."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.peers import ScriptedMx
from tests.harness.submitting import ANN, Raw, fields
from tests.harness.suite import DOMAIN, HOST, Suite

TRICKS = (
    "victim@elsewhere.example", f"victim%elsewhere.example@{DOMAIN}.", f'"victim@elsewhere.example"@x.{DOMAIN}',
    f"@{DOMAIN}:victim@elsewhere.example", f"@{DOMAIN},@x.example:victim@elsewhere.example",
    f"elsewhere.example!victim@x.{DOMAIN}", "victim@[192.0.2.1]", "victim@[IPv6:2001:db8::1]", "victim@192.0.2.1",
    f"victim@elsewhere.example@{DOMAIN}x", f"victim@{DOMAIN}@elsewhere.example", "victim", "elsewhere.example!victim",
    f'"{ANN}"@elsewhere.example', f"{ANN}@elsewhere.example", f"victim@elsewhere.example\\@{DOMAIN}",
)  # fmt: skip


@pytest.fixture
def mx(tmp_path: Path) -> Iterator[ScriptedMx]:
    with ScriptedMx(tmp_path) as there:
        yield there


@pytest.fixture
def suite(make_suite: Callable[[], Suite], mx: ScriptedMx) -> Suite:
    made = make_suite()
    made.control("maxerrors", "0\n")
    made.control("smtproutes", f":{HOST}:{mx.port}\n")
    made.control("authsenders", f"ann:sales@{DOMAIN}\n")
    return made.start()


def test_without_a_login(suite: Suite, mx: ScriptedMx) -> None:
    """On the port for strangers every way to write a foreign recipient is refused; on submission all is, before."""
    with suite.smtp() as smtp:
        smtp.ehlo()
        for sender in ("", ANN, "x@elsewhere.example"):
            smtp.mail(sender)
            for trick in TRICKS:
                assert smtp.docmd("RCPT", f"TO:<{trick}>")[0] in (501, 550, 553), trick
            smtp.rset()
    with Raw(suite, b"") as session:
        assert session.say(f"MAIL FROM:<{ANN}>\r\n".encode()) == 530
        assert session.say(b"RCPT TO:<victim@elsewhere.example>\r\n") == 530
    suite.wait_until_idle()
    assert mx.lines() == []


def test_with_a_login(suite: Suite, mx: ScriptedMx) -> None:
    """A user's mail goes out in his name or one of authsenders, whatever route is written around it."""
    with Raw(suite) as session:
        for sender in TRICKS:
            assert session.say(f"MAIL FROM:<{sender}>\r\n".encode()) in (501, 553), sender
            session.say(b"RSET\r\n")
        text = f"From: sales@{DOMAIN}\r\nSubject: x\r\n\r\nx".encode()
        assert session.message(text, f"sales@{DOMAIN}", "victim@elsewhere.example") == 250
        assert session.message(b"Subject: x\r\n\r\nx", ANN, "a%b.example@elsewhere.example") == 250
    suite.wait_until_idle()
    assert sorted(re.sub(" SIZE=.*", "", line) for line in mx.lines() if re.match("MAIL|RCPT", line)) == [
        f"MAIL FROM:<{ANN}>", f"MAIL FROM:<sales@{DOMAIN}>",
        "RCPT TO:<a%b.example@elsewhere.example>", "RCPT TO:<victim@elsewhere.example>",
    ]  # fmt: skip


def test_hidden_client(suite: Suite, mx: ScriptedMx) -> None:
    """With hideclient nothing in the message tells where it came from: no address, no name, no EHLO word."""
    suite.control("hideclient", "1\n")
    suite.signal(1)

    def hidden() -> bool:
        with Raw(suite) as session:
            assert session.message(b"Subject: x\r\n\r\nx", ANN, ANN) == 250
        return any(b"from submission (hidden)" in mail for mail in suite.wait_for_mail())

    suite.wait_for(hidden, "hideclient is read")
    with Raw(suite) as session:
        assert session.message(b"Subject: last\r\n\r\nx", ANN, "victim@elsewhere.example") == 250
    suite.wait_for(lambda: mx.texts(), "the message")
    text = mx.texts()[0].encode()
    assert HOST.encode() not in text and b"client.example" not in text and b"localhost" not in text, text
    assert len(fields(text.replace(b"\r\n", b"\n"), b"Received")) == 1
