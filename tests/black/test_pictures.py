"""Every answer of docs/PICTURES.md, played: what it shows happens to a real suite.

A test's deeds are what the page's comments ask for.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.picture import Picture, name_of_test, questions
from tests.harness.suite import HOST, ROOT, Suite
from tests.harness.waiting import LIMIT_S, wait_for

ENVELOPE = (b"HELO client.example", b"MAIL FROM:<bob@elsewhere.example>", b"RCPT TO:<ann@test.example>", b"DATA")
HALF = (b"x" * 998 + b"\r\n") * 300  # more than goes to the queue in one datagram
STALE_S = 37 * 3600  # the sweep takes what is 36 hours old
Play = Callable[..., None]


@pytest.fixture
def play(request: pytest.FixtureRequest) -> Play:
    """Plays the answer to the question that the test is named for."""
    question = next(question for question in questions() if name_of_test(question) == request.node.name)

    def on(suite: Suite, deeds: Mapping[str, Callable[[], object]] = {}) -> None:
        Picture(suite, question, deeds).play()

    return on


@contextmanager
def _full_disk(suite: Suite, program: str, call: str) -> Iterator[None]:
    """For *program* and the processes that it forks, system call *call* finds no space."""
    what = ["-e", f"trace={call}", "-e", f"inject={call}:error=ENOSPC"]
    command = ["strace", "-f", "-p", str(suite.pid_of(program)), "-o", os.devnull, *what]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)


@contextmanager
def _exchanger(folder: Path) -> Iterator[int]:
    """A mail exchanger on this machine that takes everything; its port."""
    command = [sys.executable, str(ROOT / "tests/fakes/scripted_mx.py"), HOST, "{}", str(folder / "mx.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _send_half(suite: Suite) -> None:
    """A client is in the middle of a message when everything is killed."""
    with socket.create_connection((HOST, suite.smtp_port), LIMIT_S) as client, client.makefile("rwb") as stream:
        assert stream.readline().startswith(b"220 ")
        for line in ENVELOPE:
            stream.write(line + b"\r\n")
            stream.flush()
            assert stream.readline()[:1] in b"23"
        stream.write(HALF)
        stream.flush()
        wait_for(lambda: any((suite.home / "queue/tmp").iterdir()), "the beginning of a message")
        suite.kill()


def _start_late(suite: Suite) -> None:
    """Start when the litter is old enough."""
    then_s = time.time() - STALE_S
    for path in (suite.home / "queue/tmp").iterdir():
        os.utime(path, (then_s, then_s))
    suite.start()


def _damage(suite: Suite) -> None:
    (path,) = (suite.home / "queue/cur").iterdir()
    with path.open("r+b") as file:
        file.write(b"?")


def test_how_does_a_message_come_from_the_network_into_a_users_maildir(suite: Suite, play: Play) -> None:
    """SMTP, the queue, send, lspawn, local: each does and says its part."""
    play(suite)


def test_where_does_mail_for_an_alias_go(suite: Suite, play: Play) -> None:
    """postmaster is forwarded to root, and that to ann, each time through the queue."""
    play(suite)


def test_what_happens_to_mail_for_nobody_when_a_stranger_sends_it(suite: Suite, play: Play) -> None:
    """It is refused at RCPT and leaves nothing."""
    play(suite)


def test_what_happens_to_mail_for_nobody_that_is_in_the_queue_already(suite: Suite, play: Play) -> None:
    """Its sender gets a delivery report, once."""
    play(suite)


@pytest.mark.needs("strace")
@pytest.mark.alerts("cannot queue .* No space left on device")
def test_what_happens_when_the_queues_disk_is_full(suite: Suite, play: Play) -> None:
    """The client is told 451, and nothing is left."""
    with ExitStack() as stack:
        play(
            suite,
            {
                "the queue's disk is full": lambda: stack.enter_context(_full_disk(suite, "qm-queued", "writev")),
                "the queue's disk has room again": stack.close,
            },
        )


@pytest.mark.needs("strace")
def test_what_happens_when_a_users_disk_is_full(suite: Suite, play: Play) -> None:
    """The delivery is deferred, and succeeds later."""
    with ExitStack() as stack:
        play(
            suite,
            {
                "ann's disk is full": lambda: stack.enter_context(_full_disk(suite, "qm-lspawn", "fsync")),
                "ann's disk has room again": stack.close,
            },
        )


def test_what_happens_when_a_delivery_has_to_wait(suite: Suite, play: Play) -> None:
    """It is remembered with its next time, and SIGALRM makes that now."""
    play(suite)


@pytest.mark.alerts("a supervisor was killed")
def test_what_does_a_crash_leave_of_a_message_that_was_not_accepted(suite: Suite, play: Play) -> None:
    """Litter in queue/tmp, which is never read and is swept in the end."""
    play(
        suite,
        {
            "a client sends half of a message, and the power fails": lambda: _send_half(suite),
            "power, 36 hours later": lambda: _start_late(suite),
        },
    )


@pytest.mark.alerts("a supervisor was killed")
def test_what_does_a_crash_leave_of_a_message_that_was_accepted(suite: Suite, play: Play) -> None:
    """The whole message, which is delivered once after the next start."""
    play(suite, {"the power fails": suite.kill, "power again": suite.start})


@pytest.mark.alerts("a supervisor was killed")
def test_what_happens_when_the_power_fails_after_a_delivery_before_it_is_remembered(suite: Suite, play: Play) -> None:
    """The next try sees that the Maildir has the message."""
    play(suite, {"the power fails": suite.kill, "power again": suite.start})


def test_how_does_a_pop3_session_go(suite: Suite, play: Play) -> None:
    """Login, RETR, DELE, and removal at QUIT; a wrong password gets one answer."""
    suite.control("authfaildelay", "1\n")
    play(suite)


def test_how_does_mail_leave_for_another_host(make_suite: Callable[[], Suite], play: Play, tmp_path: Path) -> None:
    """send gives it to rspawn, whose worker hands it over."""
    with _exchanger(tmp_path) as port:
        suite = make_suite()
        suite.control("smtproutes", f"elsewhere.example:[{HOST}]:{port}\n")
        play(suite.start())
        suite.stop()


@pytest.mark.alerts("is damaged")
def test_what_happens_to_a_damaged_message(suite: Suite, play: Play) -> None:
    """It goes to queue/bad with an alert, and nowhere else."""
    play(suite, {"a byte of the message changes": lambda: _damage(suite)})


def test_every_answer_is_played() -> None:
    """Each question of PICTURES.md has a test of its name here, and each test of a picture its question."""
    names = {name for name in globals() if name.startswith("test_")} - {test_every_answer_is_played.__name__}
    assert names == set(map(name_of_test, questions()))
