"""The whole suite after something in it, or all of it, has died."""

import os
import re
import signal
from collections.abc import Callable

import pytest

from qm.supervise.status import Row
from tests.harness.suite import Suite


def _rows(suite: Suite) -> dict[str, Row]:
    lines = (suite.home / "run/status").read_text().splitlines()[1:]
    rows = [Row(name, int(pid), int(ticks), int(since), state, text) for name, pid, ticks, since, state, text in
            (line.split("\t") for line in lines)]  # fmt: skip
    return {row.name: row for row in rows}


def _message(number: int) -> bytes:
    return b"From: a@b.example\r\nSubject: number %d\r\n\r\nbody\r\n" % number


def _numbers(messages: list[bytes]) -> list[int]:
    """Which messages are there, each as often as it is there."""
    return sorted(int(re.search(rb"^Subject: number (\d+)$", message, re.MULTILINE)[1]) for message in messages)  # type: ignore[index]


@pytest.mark.alerts(r"ended with signal 9", r"lost qm-\w+", r"ended \(wait status", r"closed its channel")
@pytest.mark.parametrize("service", ["start", "pop3"])
def test_a_service_that_is_killed_comes_back(suite: Suite, service: str) -> None:
    """After a SIGKILL of a service it is started again, and mail goes its way."""
    before = _rows(suite)[service].pid
    os.kill(before, signal.SIGKILL)
    suite.wait_for(lambda: _rows(suite)[service].pid not in (0, before), "a new process")
    suite.wait_for(lambda: all(row.state == "up" for row in _rows(suite).values()), "all services")
    suite.send("ann@test.example", _message(1))
    suite.wait_for_mail()


def test_reload_keeps_everything_running(suite: Suite) -> None:
    """SIGHUP makes the control files count, and ends no service."""
    before = {name: row.pid for name, row in _rows(suite).items()}
    suite.control("concurrencylocal", "0\n")
    suite.signal(signal.SIGHUP)
    suite.wait_for_log(r"^status: local 0/0 ")
    suite.send("ann@test.example", _message(1))
    suite.control("concurrencylocal", "10\n")
    suite.signal(signal.SIGHUP)
    suite.wait_for_mail()
    assert {name: row.pid for name, row in _rows(suite).items()} == before


def test_a_restart_loses_nothing(suite: Suite) -> None:
    """What was accepted before an orderly stop is delivered after it, once."""
    for number in range(20):
        suite.send("ann@test.example", _message(number))
    suite.restart()
    suite.wait_until_idle()
    assert _numbers(suite.mail()) == list(range(20))


@pytest.mark.alerts(r"a supervisor was killed")
def test_a_power_failure_loses_nothing(suite: Suite) -> None:
    """What was accepted before all processes were killed at once is delivered after the next start, once."""
    for number in range(40):
        suite.send("ann@test.example", _message(number))
    suite.kill()
    suite.start()
    suite.wait_until_idle()
    assert _numbers(suite.mail()) == list(range(40))


def test_an_open_session_does_not_hold_up_a_stop(make_suite: Callable[[], Suite]) -> None:
    """A client that says nothing delays the stop by seconds, no more, and gets its connection closed."""
    suite = make_suite().start()
    with suite.smtp() as client:
        client.ehlo()
        suite.stop()
        assert client.sock.recv(100)[:3] in (b"", b"421")
        client.close()
