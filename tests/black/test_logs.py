"""What the programs say of a session, in both formats, and what they never say."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qm.wire.logline import read
from tests.harness.dialogue import Dialogue
from tests.harness.suite import BIN, Suite

HOSTILE = b"\x1b]0;x\x07\x9b31m\xe2\x80\xae\r\x00"  # a title, a colour, C1, right to left, a return
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
SECRETS = ("correct-horse-battery", "Tr0ub4dor", "c29tZXRoaW5nLXNlY3JldA")


def _log_files(suite: Suite) -> list[Path]:
    return sorted(suite.home.glob("log/*"))


def _session(suite: Suite, data: bytes) -> None:
    with Dialogue(suite.smtp_port) as client:
        assert client.reply().startswith(b"220 ")
        client.say(data)
        client.rest()


def test_passwords_are_nowhere_in_the_log(make_suite: Callable[[], Suite]) -> None:
    """No secret that anybody typed, right, wrong, in the wrong place or the wrong protocol, is in any log file."""
    suite = make_suite()
    suite.add_user("ben", SECRETS[0])
    suite.start()
    suite.pop3("ben", SECRETS[0]).quit()
    with Dialogue(suite.pop3_port) as client:
        client.say(b"USER ben\r\nPASS %b\r\n" % SECRETS[1].encode())
        client.say(b"PASS %b\r\nUSER ben %b\r\nUSER ben\r\nPASS  %b \r\n" % ((SECRETS[0].encode(),) * 3))
        client.say(b"AUTH PLAIN %b\r\nXAUTH %b\r\nQUIT\r\n" % ((SECRETS[2].encode(),) * 2))
        client.rest()
    words = tuple(secret.encode() for secret in SECRETS)
    _session(suite, b"EHLO c\r\nAUTH PLAIN %b\r\nAUTH LOGIN\r\n%b\r\n%b\r\nQUIT\r\n" % words)
    suite.wait_for_log(r"end how=quit in=\d+")
    suite.stop()
    text = b"".join(path.read_bytes() for path in _log_files(suite))
    assert b"login ben from" in text
    assert not [secret for secret in SECRETS if secret.encode() in text]


def test_a_stranger_forges_nothing(suite: Suite) -> None:
    """No control byte, escape or change of direction gets into the log, and no name makes a line say what is not so."""
    _session(suite, b"EHLO %b\r\nMAIL FROM:<a%b@b>\r\n%b\r\nQUIT\r\n" % (HOSTILE, HOSTILE, HOSTILE))
    with Dialogue(suite.pop3_port) as client:
        client.say(b"USER ann from 1.2.3.4: ok, uid 0\r\nPASS x\r\nUSER %b\r\nQUIT\r\n" % HOSTILE)
        client.rest()
    suite.wait_for_log(r"login \S+ from 127\.0\.0\.1: login refused")
    suite.wait_for_log(r"end how=quit in=\d+")
    for path in _log_files(suite):
        lines = path.read_bytes().splitlines()
        assert lines
        assert all(line.isascii() and line.decode("ascii").isprintable() for line in lines)
        assert not any(b"from 1.2.3.4: ok" in line for line in lines)


def _objects(suite: Suite) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (suite.home / "log/current").read_bytes().splitlines()]


def test_json_after_a_reload(suite: Suite) -> None:
    """control/logformat counts from the next reload on: each line is an object, whatever a stranger sent."""
    suite.send("ann@test.example", MESSAGE)
    suite.wait_for_log("end msg")
    suite.control("logformat", "json\n")
    suite.signal(1)
    suite.wait_for(lambda: suite.send("ann@test.example", MESSAGE) and list(suite.home.glob("log/@*.s")), "the reload")
    _session(suite, b"HELO %b\r\nQUIT\r\n" % HOSTILE)
    suite.wait_for_log('"how":"quit"')
    suite.wait_until_idle()
    suite.wait_for(lambda: any(line["event"] == "end" for line in _objects(suite)), "the end of a message")
    found = _objects(suite)
    rcpt = next(line for line in found if line["event"] == "rcpt")
    assert rcpt["program"] == "qm-smtpd"
    assert isinstance(rcpt["pid"], int)
    assert rcpt["fields"] == {"to": "ann@test.example", "code": 250, "why": "rcpthosts:test.example"}
    (old,) = suite.home.glob("log/@*.s")
    assert all(read(line) for path in (old, suite.home / "log/current") for line in path.read_bytes().splitlines())


@pytest.mark.alerts(r"control/logformat:1: neither qmail nor json")
def test_a_format_that_is_none(suite: Suite) -> None:
    """A broken control/logformat is said, and the lines stay as they were."""
    suite.control("logformat", "xml\n")
    suite.signal(1)
    suite.wait_for_log(r"qm-log: alert: .*control/logformat:1: neither qmail nor json")
    suite.send("ann@test.example", MESSAGE)
    suite.wait_for_log(r"^end msg")


@pytest.mark.parametrize("subject", ["id", "ann@test.example"])
def test_qm_log(suite: Suite, subject: str) -> None:
    """`qm log` tells a message's whole way, from the session to the mailbox; what nobody knows is exit code 1."""
    suite.send("ann@test.example", MESSAGE)
    name = suite.wait_for_log(r"^end msg (\w+)")[1]
    suite.wait_for_log(r"end how=quit")
    command = [BIN / "qm", "log", "--home", str(suite.home)]
    said = subprocess.run([*command, name if subject == "id" else subject], capture_output=True, check=True, text=True)
    events = ["connect", "mail", "rcpt", "message", "new", "info", "start", "delivery", "end"]
    assert set(events) <= {word for line in said.stdout.splitlines() for word in line.split()[3:4]}
    assert subprocess.run([*command, "nobody@x.example"], capture_output=True, check=False).returncode == 1
