"""Accept, killed between any two steps: an acknowledged message is in new/ whole, any other is absent or whole."""

import os
import signal
import time
from pathlib import Path

import pytest

from qm.disk import queue, queuefile
from qm.disk.accept import STEPS, Draft, Entry, Store, accept, publish
from qm.wire.envelope import Envelope, Recipient
from tests.crash.faults import kill_me, killed
from tests.harness.waiting import wait_for

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"),))
BOUNCE = b"1htpzqqd7xhat00k7pb"


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    queue.make()


def _draft(message: bytes = b"body\n", name: bytes = b"", *, streamed: bool = False) -> Draft:
    pieces = iter([message[:3], message[3:]]) if streamed else (message,)
    return Draft(lambda *_: b"Received: x\n", pieces, lambda: ENVELOPE, 1, 2, name)


def _messages() -> list[bytes]:
    """All of new/, each of which must be whole."""
    found = []
    for path in sorted(Path(queue.NEW).iterdir()):
        with path.open("rb") as file:
            checked = queuefile.read(file.fileno())
            assert checked.envelope.recipients == ENVELOPE.recipients
            found.append(b"".join(queuefile.checked_message(file.fileno(), checked)))
    return found


def _sweep_and_check_litter(most: int) -> None:
    """In tmp/ is at most what the killed process was writing, and the sweep takes it when its time has come."""
    litter = os.listdir(queue.TMP)
    assert len(litter) <= most
    assert queue.sweep(time.time()) == 0
    assert queue.sweep(time.time() + queue.STALE_S + 60) == len(litter)
    assert os.listdir(queue.TMP) == []


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
def test_killed_after_any_step(cut: int, streamed: bool) -> None:
    """Before publish nothing is visible, afterwards the whole message is; then the same message goes through."""
    steps = (*STEPS[:cut], kill_me, *STEPS[cut:])
    assert killed(lambda: accept(Store(), _draft(streamed=streamed), steps)) == signal.SIGKILL
    visible = cut > STEPS.index(publish)
    assert _messages() == [b"Received: x\nbody\n"] * visible
    _sweep_and_check_litter(0 if visible or cut == 0 else 1)
    accept(Store(), _draft(streamed=streamed))
    assert _messages() == [b"Received: x\nbody\n"] * (1 + visible)


def _check_bounce() -> None:
    """After a crash the bounce is queued again, and is there once."""
    before = os.listdir(queue.NEW)
    assert accept(Store(), _draft(name=BOUNCE)) == (BOUNCE, bool(before))
    assert _messages() == [b"Received: x\nbody\n"]
    _sweep_and_check_litter(1)
    assert _messages() == [b"Received: x\nbody\n"]


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
def test_a_bounce_killed_after_any_step_is_queued_once(cut: int) -> None:
    """A derived message that is repeated after a crash is there once."""
    steps = (*STEPS[:cut], kill_me, *STEPS[cut:])
    assert killed(lambda: accept(Store(), _draft(name=BOUNCE), steps)) == signal.SIGKILL
    _check_bounce()


@pytest.mark.parametrize("call", ["link", "unlink"])
def test_a_bounce_killed_within_publish_is_queued_once(call: str) -> None:
    """The same before its link, and between the link and the end of its first name."""

    def crash() -> None:
        setattr(os, call, lambda *_, **__: kill_me())
        accept(Store(), _draft(name=BOUNCE))

    assert killed(crash) == signal.SIGKILL
    assert os.listdir(queue.NEW) == ([] if call == "link" else [BOUNCE.decode()])
    _check_bounce()


def _writer(acknowledged: int, streamed: bool) -> None:
    """Queue messages for ever; say each number once it is accepted."""
    store = Store()
    number = 0
    while True:
        number += 1
        accept(store, _draft(b"%08d\n" % number, streamed=streamed))
        os.write(acknowledged, b"%08d\n" % number)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("run", range(5))
def test_killed_at_any_moment(run: int, streamed: bool) -> None:
    """A writer that is killed while it works: each number that it has acknowledged is there once, and at most
    one more.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _writer(writer, streamed)
        finally:
            os._exit(1)
    os.close(writer)
    wait_for(lambda: len(os.listdir(queue.NEW)) > 20 * run, "some messages")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as file:
        acknowledged = file.read().splitlines()
    found = [message.splitlines()[1] for message in _messages()]
    assert found[: len(acknowledged)] == acknowledged
    assert len(acknowledged) <= len(found) <= len(acknowledged) + 1
    _sweep_and_check_litter(1)


def test_a_step_sees_what_the_one_before_has_done() -> None:
    """The tuple is the order that is written down: what is on disk after each step."""
    seen = []

    def look(entry: Entry) -> None:
        tmp, new = os.listdir(queue.TMP), os.listdir(queue.NEW)
        size = os.path.getsize(Path(queue.TMP, tmp[0])) if tmp else -1
        seen.append((len(tmp), min(size, 1), len(new), entry.fd >= 0))

    accept(Store(), _draft(), [step for pair in zip(STEPS, [look] * len(STEPS), strict=True) for step in pair])
    names = [step.__name__ for step in STEPS]
    assert dict(zip(names, seen, strict=True)) == {
        "create": (1, 0, 0, True),
        "write": (1, 1, 0, True),
        "sync": (1, 1, 0, True),
        "close": (1, 1, 0, False),
        "publish": (0, -1, 1, False),
        "sync_new": (0, -1, 1, False),
        "poke": (0, -1, 1, False),
    }
