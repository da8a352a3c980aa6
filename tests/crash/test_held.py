"""Held messages, killed between any two steps: held, or released, or given up; never delivered unasked, never lost."""

import os
import signal
from pathlib import Path

import pytest

from qm.disk import held, queue, queuefile, state
from qm.disk.accept import STEPS, Draft, Store, accept, publish
from qm.send import expiry, intake
from qm.wire.envelope import Envelope, Recipient
from tests.crash.faults import kill_me, killed

HELD = Envelope(b"a@b.example", (Recipient(b"c@d.example"),), held=b"limitmessages", login=b"a")
PLACES = (queue.HELD, queue.NEW, queue.CUR)


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    queue.make()


def _put() -> bytes:
    return accept(Store(), Draft(lambda *_: b"Received: x\n", (b"body\n",), lambda: HELD, 1, 2)).name


def _where(name: bytes) -> list[str]:
    """The one directory in which the message is, whole."""
    found = [place for place in PLACES if os.path.lexists(os.path.join(os.fsencode(place), name))]
    for place in found:
        with open(os.path.join(os.fsencode(place), name), "rb") as file:
            checked = queuefile.read(file.fileno())
            assert b"".join(queuefile.checked_message(file.fileno(), checked)) == b"Received: x\nbody\n"
    return found


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
def test_taken(cut: int) -> None:
    """One that is being held is never in new/, whole in held/ after publish, and else nowhere."""
    steps = (*STEPS[:cut], kill_me, *STEPS[cut:])
    draft = Draft(lambda *_: b"Received: x\n", (b"body\n",), lambda: HELD, 1, 2)
    assert killed(lambda: accept(Store(), draft, steps)) == signal.SIGKILL
    names = held.ids()
    assert len(names) == (cut > STEPS.index(publish))
    assert [_where(name) for name in names] == [[queue.HELD]] * len(names)
    assert os.listdir(queue.NEW) == []


@pytest.mark.parametrize("cut", range(len(held.RELEASE) + 1))
def test_released(cut: int) -> None:
    """It is held or new; a second release of one that is still held lets it go."""
    name = _put()
    assert killed(lambda: held.run((*held.RELEASE[:cut], kill_me), name)) == signal.SIGKILL
    assert _where(name) == [queue.NEW if cut else queue.HELD]
    if not cut:
        held.run(held.RELEASE, name)
        assert _where(name) == [queue.NEW]


@pytest.mark.parametrize("cut", range(len(held.DELETE) + 1))
def test_deleted(cut: int) -> None:
    """It is held or gone."""
    name = _put()
    assert killed(lambda: held.run((*held.DELETE[:cut], kill_me), name)) == signal.SIGKILL
    assert _where(name) == ([] if cut else [queue.HELD])


@pytest.mark.parametrize("cut", range(len(expiry.STEPS) + 1))
def test_given_up(cut: int) -> None:
    """It is still held, without a past after the next start; or in cur/, and it is written that it has failed."""

    def crash() -> None:
        for step in (*expiry.STEPS[:cut], lambda *_: kill_me()):
            step(name, HELD, 5)

    name = _put()
    assert killed(crash) == signal.SIGKILL
    moved = cut > expiry.STEPS.index(expiry.move)
    assert _where(name) == [queue.CUR if moved else queue.HELD]
    assert intake.left_over() == [name] * moved
    outcomes = [outcome.letter for outcome in state.read(os.fsencode(queue.STATE) + b"/" + name)]
    assert outcomes == [b"D"] * moved
