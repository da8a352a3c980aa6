"""The real queue service, killed at any system call and given failing ones (strace)."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.unix.queueclient import QueueClient
from qm.wire import queuecode
from qm.wire.queuecode import Deferred
from tests.harness.queueservice import ENVELOPE, QueueService
from tests.harness.waiting import wait_for

# A worker's calls for a message: openat writev fsync close renameat fsync write(trigger) sendto.  The first message
# of each test goes through, so that the counts below are of the second: a call of the service's start is not hit.
AT = [("writev", 2), ("fsync", 3), ("renameat", 2), ("fsync", 4), ("sendto", 2)]
FILE_SYNC, DIRECTORY_SYNC = ("fsync", 3), ("fsync", 4)


@pytest.fixture
def queued(tmp_path: Path) -> Iterator[QueueService]:
    service = QueueService(tmp_path / "home")
    yield service
    if service.process is not None:
        service.kill()


def _strace(call: str, when: int, effect: str, output: Path) -> list[str]:
    """The command that makes the call number *when* of each process have *effect*."""
    return ["strace", "-D", "-f", "-o", str(output), "-e", f"trace={call}", "-e", f"inject={call}:{effect}:when={when}"]


@pytest.mark.needs("strace")
@pytest.mark.parametrize(("call", "when"), AT)
def test_a_worker_killed_at_any_call(queued: QueueService, tmp_path: Path, call: str, when: int) -> None:
    """The client reads a temporary failure; what was acknowledged is whole, the rest absent or whole; the
    service lives on.
    """
    queued.start(_strace(call, when, "signal=KILL", tmp_path / "trace"))
    with queued.client() as client:
        queued.put(b"first\n", client)
        with pytest.raises(Temporary):
            queued.put(b"second\n", client)
        queued.put(b"third\n", client)
    found = [message.splitlines()[-1] for message in queued.messages()]
    visible = [b"second"] if (call, when) in (DIRECTORY_SYNC, ("sendto", 2)) else []
    assert found == [b"first", *visible, b"third"]
    assert len(queued.names("tmp")) == (0 if visible else 1)
    wait_for(lambda: re.search(r"alert: worker \d+ ended with -9", queued.log()), "word of the dead worker")


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("call", "when", "code"), [("writev", 2, 53), (*FILE_SYNC, 53), ("renameat", 2, 66), (*DIRECTORY_SYNC, 53)]
)
def test_a_failing_call_of_the_real_service(
    queued: QueueService, tmp_path: Path, call: str, when: int, code: int, error: str
) -> None:
    """A full disk or a broken one is a temporary failure with qm-queue's code, an alert that says where, and
    nothing left behind.
    """
    queued.start(_strace(call, when, f"error={error}", tmp_path / "trace"))
    with queued.client() as client:
        queued.put(b"first\n", client)
        with pytest.raises(Temporary) as caught:
            queued.put(b"second\n", client)
        assert caught.value.code == code  # type: ignore[attr-defined]
        queued.put(b"third\n", client)  # on the same connection
    assert [message.splitlines()[-1] for message in queued.messages()] == [b"first", b"third"]
    assert queued.names("tmp") == []
    step = {"writev": "write", "renameat": "publish"}.get(call, "sync" if when == 3 else "sync_new")
    assert re.search(rf"^qm-queued: alert: cannot queue [0-9a-z]{{18}}: {step}: ", queued.log(), re.MULTILINE)
    calls = (tmp_path / "trace").read_text().count(" fsync(")
    assert call != "fsync" or calls == 1 + 2 + when - 2 + 2, "a failed fsync was tried again"
    assert queued.stop() == 0


@pytest.mark.needs("strace")
def test_the_answer_comes_last(queued: QueueService, tmp_path: Path) -> None:
    """The order that makes a promise true is the order of the real process's system calls, and there are no
    more of them.
    """
    trace = tmp_path / "trace"
    queued.start(["strace", "-D", "-f", "-o", str(trace)])
    with queued.client() as client:
        for _ in range(3):
            name = queued.put(b"body\n", client)
    queued.kill()
    lines = [line.partition(" ")[2].lstrip() for line in trace.read_text().splitlines()]
    end = next(at for at, line in enumerate(lines) if line.startswith("sendto(") and name.decode() in line)
    calls = [line.partition("(")[0] for line in lines[end - 8 : end + 1]]
    assert calls == ["recvfrom", "openat", "writev", "fsync", "close", "renameat", "fsync", "openat", "sendto"]


@pytest.mark.parametrize("run", range(3))
def test_the_whole_service_killed_under_load(queued: QueueService, run: int) -> None:
    """Every process killed at once while four clients send: each acknowledged message is there once after the
    restart, none twice.
    """
    queued.start()
    pipes = [_load(queued, number) for number in range(4)]
    wait_for(lambda: len(queued.names("new")) > 30 + 30 * run, "some messages")
    queued.kill()
    acknowledged = []
    for pid, reader in pipes:
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as file:
            acknowledged += file.read().splitlines()
    queued.start()
    queued.put(b"after\n")
    found = [message.splitlines()[-1] for message in queued.messages()]
    assert len(set(found)) == len(found)
    assert set(acknowledged) < set(found)
    assert len(found) <= len(acknowledged) + 4 + 1
    assert queued.stop() == 0


def _load(queued: QueueService, number: int, large: int = 200_000) -> tuple[int, int]:
    """A client that sends until it fails, small and large in turn, and exits with the failure's code.

    Gives its pid and where it says what was acknowledged.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _send_on(queued.client(), number, large, writer)
        except Deferred as error:
            os._exit(error.code)
        finally:
            os._exit(1)
    os.close(writer)
    return pid, reader


def _send_on(client: QueueClient, number: int, large: int, writer: int) -> None:
    for count in range(100_000):
        submission = client.begin()
        submission.write(b"x" * (large * (count % 2)) + b"\n%d.%d\n" % (number, count))
        submission.commit(ENVELOPE)
        os.write(writer, b"%d.%d\n" % (number, count))


def test_a_service_that_is_told_to_stop_finishes_no_half_message(queued: QueueService) -> None:
    """SIGTERM with a message half sent: it is thrown away with its file, the client reads temporary, the
    service ends well.
    """
    queued.start()
    with queued.client() as client:
        submission = client.begin()
        submission.write(b"x" * 200_000)
        wait_for(lambda: queued.names("tmp"), "a file that grows")
        assert queued.stop() == 0
        with pytest.raises(Temporary):
            submission.commit(ENVELOPE)
    assert queued.names("tmp") == queued.names("new") == []


def test_a_stop_breaks_off_no_message(queued: QueueService) -> None:
    """SIGTERM under load: each message is either answered, or refused before it was entrusted: nobody is left
    in doubt.
    """
    queued.start()
    pipes = [_load(queued, number, large=0) for number in range(4)]
    wait_for(lambda: len({message.splitlines()[-1][:1] for message in queued.messages()}) == 4, "some messages of each")
    assert queued.stop() == 0
    acknowledged = []
    for pid, reader in pipes:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == queuecode.UNREACHABLE
        with os.fdopen(reader, "rb") as file:
            acknowledged += file.read().splitlines()
    assert sorted(acknowledged) == sorted(message.splitlines()[-1] for message in queued.messages())
    assert queued.names("tmp") == []


def test_a_killed_service_leaves_its_place_to_the_next(queued: QueueService) -> None:
    """Neither the lock nor the old socket keeps a new service from starting."""
    queued.start()
    assert queued.process is not None
    os.kill(queued.process.pid, signal.SIGKILL)
    queued.process.wait()
    queued.start()
    queued.put()
    assert len(queued.names("new")) == 1
