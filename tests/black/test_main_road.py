"""The main road: in by SMTP, out by POP3."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.suite import Suite

MESSAGE = (
    b"From: bob@elsewhere.example\r\nTo: ann@test.example\r\nSubject: hello\r\n\r\n"
    b"first line\r\n.dotted\r\nlast line\r\n"
)


@pytest.fixture(params=["warm", "cold"])
def either_suite(request: pytest.FixtureRequest, make_suite: Callable[..., Suite], open_folder: Path) -> Suite:
    """A suite whose programs call each other in one process, and one in which they exec each other."""
    suite = make_suite(open_folder)
    if request.param == "cold":
        suite.env["QMCOLD"] = "1"
    return suite.start()


def test_a_message_sent_by_smtp_is_read_by_pop3(either_suite: Suite) -> None:
    """What smtpd has accepted for a local mailbox is there for POP3, byte for byte, once, with its trace."""
    suite = either_suite
    reply = suite.send("ann@test.example", MESSAGE)
    suite.wait_for_mail()
    client = suite.pop3()
    assert client.stat()[0] == 1
    lines = client.retr(1)[1]
    client.quit()
    text = b"\r\n".join([*lines, b""])
    assert text.endswith(MESSAGE)
    header = text.removesuffix(MESSAGE)
    assert header.startswith(b"Return-Path: <bob@elsewhere.example>\r\nDelivered-To: ")
    queue_id = re.search(rb"\b[0-9a-z]{18}\b", reply)
    assert queue_id is not None, reply
    assert queue_id[0] in header
    suite.wait_until_idle()
