"""send's memory: written before it counts, bounded in each turn, kept when a disk fails."""

import os
import time
from pathlib import Path

import pytest

from qm.disk import queue, queuefile, state
from qm.disk.state import Outcome
from qm.send.ledger import Ledger
from qm.send.message import Message, Recipient
from qm.unix.loop import Loop
from qm.wire import envelope
from qm.wire.envelope import Envelope
from tests.harness.sending import make_home, write_message

NOW_S = 1_800_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_home()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Loop())


def _message(recipients: int = 2) -> Message:
    wanted = tuple(envelope.Recipient(b"u%d@x.test" % n) for n in range(recipients))
    name = write_message(Envelope(b"a@b", wanted, born_ns=time.time_ns()), folder=queue.CUR)
    fd = os.open(Path(queue.CUR, name.decode()), os.O_RDONLY)
    message = Message(name, fd, queuefile.read(fd), NOW_S, again=False)
    message.recipients = [Recipient(index, one.address, b"x.test") for index, one in enumerate(wanted)]
    return message


def _note(ledger: Ledger, message: Message, index: int, letter: bytes) -> Outcome:
    outcome = Outcome(NOW_S, index, letter, NOW_S + 400 if letter == b"Z" else 0, b"text\n")
    message.recipients[index].learn(outcome)
    ledger.note(message, outcome)
    return outcome


def _remembered(message: Message) -> list[Outcome]:
    return list(state.read(os.path.join(os.fsencode(queue.STATE), message.id)))


def test_an_outcome_is_on_disk_when_it_counts(ledger: Ledger) -> None:
    """What flush names has been written; whoever all got it at once needs no memory."""
    some, everybody = _message(), _message()
    outcome = _note(ledger, some, 0, b"K")
    for index in (0, 1):
        _note(ledger, everybody, index, b"K")
    assert ledger.flush(60.0) == [some, everybody]
    assert _remembered(some) == [outcome] and not _remembered(everybody)


def test_a_turn_writes_a_part(ledger: Ledger) -> None:
    """Past its time a flush leaves the rest for the next; each writes something."""
    messages = [_message() for _ in range(5)]
    for message in messages:
        _note(ledger, message, 0, b"Z")
    written = [ledger.flush(0.0) for _ in messages]
    assert written == [[message] for message in messages]
    assert ledger.flush() == []


def test_what_cannot_be_written_holds_up_no_others(ledger: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    """A state file that cannot be written is tried again, after the others, and said once."""
    bad, good = _message(), _message()
    Path(queue.STATE, bad.id.decode()).mkdir()
    outcomes = [_note(ledger, bad, 0, b"D")]
    _note(ledger, good, 0, b"D")
    assert ledger.flush(0.0) == []
    assert ledger.flush(0.0) == [good]
    assert ledger.flush() == []
    outcomes.append(_note(ledger, bad, 1, b"K"))
    Path(queue.STATE, bad.id.decode()).rmdir()
    assert ledger.flush() == [bad]
    assert _remembered(bad) == outcomes
    assert capfd.readouterr().err.count("alert: cannot write") >= 1


def test_a_name_is_made_durable(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is synced with the first outcome that must survive, also where a deferral has made the file."""
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    message = _message(3)
    counts = []
    for index, letter in enumerate((b"Z", b"D", b"K")):
        _note(ledger, message, index, letter)
        ledger.flush()
        counts.append(len(synced))
    assert counts == [0, 1, 1]
