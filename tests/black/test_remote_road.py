"""From the queue of a whole suite to another host (docs/PICTURES.md)."""

from collections.abc import Callable
from pathlib import Path

from tests.harness.peers import ScriptedMx
from tests.harness.suite import Suite
from tests.harness.waiting import wait_for


def test_to_another_host(make_suite: Callable[[], Suite], tmp_path: Path) -> None:
    """A queued message leaves by SMTP, once for all recipients of the host, and its end is logged."""
    with ScriptedMx(tmp_path) as mx:
        suite = make_suite()
        suite.control("smtproutes", f"x.test:127.0.0.1:{mx.port}\n")
        suite.start()
        suite.queue(b"Subject: out\n\n.dot\n", b"Fann@test.example\0Tbob@x.test\0Teve@x.test\0\0")
        wait_for(mx.texts, "the message")
        (text,) = mx.texts()
        assert text.startswith("Received: ") and text.endswith("Subject: out\r\n\r\n..dot\r\n")
        assert mx.lines()[2:4] == ["RCPT TO:<bob@x.test>", "RCPT TO:<eve@x.test>"]
        suite.wait_for_log("end msg")
        assert "127.0.0.1_accepted_message./Remote_host_said:_250_2.0.0_ok/" in suite.log()


def test_a_refusal_comes_back(make_suite: Callable[[], Suite], tmp_path: Path) -> None:
    """What another host refuses comes back to its sender as a report that names who refused, and why."""
    with ScriptedMx(tmp_path, {"RCPT": ["550 5.1.1 no such user"]}) as mx:
        suite = make_suite()
        suite.control("smtproutes", f"x.test:127.0.0.1:{mx.port}\n")
        suite.start()
        suite.queue(b"Subject: out\n\nbody\n", b"Fann@test.example\0Tbob@x.test\0\0")
        (report,) = suite.wait_for_mail()
        assert b"Remote host said: 550 5.1.1 no such user" in report
        assert b"Status: 5.1.1" in report and b"Diagnostic-Code: smtp;550 5.1.1 no such user" in report
