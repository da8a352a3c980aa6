"""send is killed at each system call that changes the disk or gives mail away: nothing is lost, invented or delivered
twice.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qm.disk import queue, state
from qm.disk.state import Outcome
from qm.send import intake, ledger
from qm.unix.loop import Loop
from qm.wire import queuecode
from tests.harness.suite import DOMAIN, Suite

ANN = f"ann@{DOMAIN}"
MESSAGE = b"Subject: %d\r\n\r\nbody\r\n"
# What send does for one message with two recipients, one of whom fails: take up, copy, give out, remember, report,
# forget.
CALLS = ["rename", "pwrite64", "sendmsg", "write", "fdatasync", "fsync", "unlink", "openat", "memfd_create", "pread64"]


@contextmanager
def _injected(suite: Suite, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """strace on the running send, with one injection."""
    pid = suite.pid_of("qm-send")
    command = ["strace", "-p", str(pid), "-o", os.devnull, "-e", f"trace={what.split(':')[0]}", "-e", f"inject={what}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield tracer
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.wait(20)


def _subjects(suite: Suite) -> list[bytes]:
    """Of the messages themselves, not of the reports."""
    found = []
    for text in suite.mail():
        if b"\nHi. This is the" not in text:
            found.append(next(line for line in text.split(b"\n") if line.startswith(b"Subject: ")))
    return sorted(found)


def _queue(suite: Suite, number: int) -> None:
    """Message *number*; the door may be closed just then, since with send the whole of start begins anew."""
    envelope = f"F{ANN}\0T{ANN}\0Tnobody@{DOMAIN}\0\0".encode()
    codes = [-1]

    def is_queued() -> bool:
        codes.append(suite.queue(MESSAGE.replace(b"\r", b"") % number, envelope))
        return codes[-1] != queuecode.UNREACHABLE  # with which nothing was taken

    suite.wait_for(is_queued, f"an open door {codes}")
    assert codes[-1] == queuecode.QUEUED


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", CALLS)
def test_send_is_killed_at_a_system_call(make_suite: Callable[[], Suite], call: str) -> None:
    """Whichever call is send's last, every accepted message is in the mailbox exactly once, and the queue ends
    empty.
    """
    suite = make_suite()
    suite.allowed_alerts += ["qm-start: alert", "qm-supervise: alert: start ended"]
    suite.allowed_alerts += ["alert: lost qm-", "cannot report to send"]
    suite.start()
    sent = 0
    for count in (1, 2, 3, 5):
        with _injected(suite, f"{call}:signal=KILL:when={count}") as tracer:
            for _ in range(2):
                sent += 1
                _queue(suite, sent)
            suite.wait_for(
                lambda tracer=tracer: tracer.poll() is not None or not os.listdir(suite.home / queue.CUR), "send's end"
            )
        suite.wait_until_idle(60)
    suite.wait_until_idle(60)
    assert _subjects(suite) == sorted(b"Subject: %d" % number for number in range(1, sent + 1))
    reports = [text for text in suite.mail() if b"\nHi. This is the" in text]
    assert sent <= len(reports) <= sent + 4  # RFC 1047: a report may come twice for each time that send was killed
    suite.restart()
    assert not os.listdir(suite.home / queue.STATE)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("call", ["rename", "fdatasync", "fsync", "unlink", "memfd_create", "pwrite64"])
def test_a_system_call_of_send_fails(make_suite: Callable[[], Suite], call: str, error: str) -> None:
    """A disk that is full or broken for a while is said in the log; afterwards every message is there once."""
    suite = make_suite()
    suite.allowed_alerts.append("alert: cannot ")
    suite.start()
    envelope = f"F{ANN}\0T{ANN}\0Tnobody@{DOMAIN}\0\0".encode()
    with _injected(suite, f"{call}:error={error}:when=1..2"):
        assert suite.queue(b"Subject: 1\n\nbody\n", envelope) == 0
        suite.wait_for_log("alert: cannot |end msg")
    assert suite.queue(b"Subject: 2\n\nbody\n", envelope) == 0
    suite.wait_for(lambda: suite.signal(signal.SIGALRM) or suite.is_idle(), "an empty queue", 60)
    assert _subjects(suite) == [b"Subject: 1", b"Subject: 2"]


def _finish_until(book: ledger.Ledger, name: bytes, last: int) -> None:
    for step in ledger.FINISH[:last]:
        step(book, name)


@pytest.mark.parametrize("last", range(len(ledger.FINISH) + 1))
def test_forgetting_a_message_is_cut_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """There is never a message without its memory; doing all again ends with neither."""
    monkeypatch.chdir(tmp_path)
    for folder in (queue.CUR, queue.STATE):
        os.makedirs(folder)
    name = b"1htpykn9dew0c00c1s"
    Path(queue.CUR, name.decode()).write_bytes(b"message")
    path = os.fsencode(queue.STATE) + b"/" + name
    state.append(path, os.open(queue.STATE, os.O_RDONLY), [Outcome(1, 0, b"K", 0, b"ok")], durable=True)
    book = ledger.Ledger(Loop())
    _finish_until(book, name, last)
    has_message, has_state = bool(os.listdir(queue.CUR)), bool(os.listdir(queue.STATE))
    assert has_state or not has_message
    if intake.left_over():
        _finish_until(book, name, len(ledger.FINISH))
    assert not os.listdir(queue.CUR) and not os.listdir(queue.STATE)
