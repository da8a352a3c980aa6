"""qm import killed anywhere: what is over there stays as it was, and the next run takes the rest, each message once."""

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.admin import queueimport
from qm.admin.findings import Finding
from qm.admin.queueimport import Source
from qm.disk import accept, queuefile
from qm.errors import QmError
from qm.wire.route import Rules
from tests.crash.faults import Faults, kill_me, killed
from tests.harness.queueservice import ROLES
from tests.harness.waiting import wait_for

SENDERS = (b"a@s.example", b"b@s.example", b"")
RULES = Rules(b"test.example", frozenset((b"test.example",)), frozenset(), {})
CALLS = ("open", "write", "writev", "fsync", "link", "unlink", "close", "fork", "pread", "fstat")
CALLS_MAX = 60


class Move:
    """Three messages of a qmail's queue, and a home for them; it is the current directory."""

    def __init__(self, folder: Path) -> None:
        self.there, self.home = folder / "there", folder / "home"
        for place in (self.there, self.home / "control", self.home / "queue"):
            place.mkdir(parents=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            roles = "".join(f"{role}:{uid}:60000\n" for role, uid in ROLES.items())
            (self.home / "control/roles").write_text(roles)
            os.chown(self.home / "queue", ROLES["qmailq"], 60000)
        self.sources = []
        for number, sender in enumerate(SENDERS):
            files = {
                "mess": b"Subject: %d\n\nx\n" % number,
                "info": b"F%b\0" % sender,
                "local": b"Tann@test.example\0Dbob@test.example\0",
                "remote": b"Tx@far.example\0Dy@far.example\0" if number else b"",
            }
            for name, text in files.items():
                (self.there / f"{name}{number}").write_bytes(text)
            paths = tuple(str(self.there / f"{name}{number}") for name in files)
            self.sources.append(Source(b"qmail", f"{number}", paths))
        self.before = self.tree()
        os.chdir(self.home)

    def tree(self) -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.there.iterdir()}

    def run(self) -> list[Finding]:
        return list(queueimport.carry(self.sources, RULES, dry_run=False))

    def try_to(self) -> None:
        """As `run`; it may fail."""
        try:
            self.run()
        except (QmError, OSError):
            pass

    def queued(self) -> list[tuple[bytes, list[bytes]]]:
        found = []
        for path in (self.home / "queue").glob("new/*"):
            fd = os.open(path, os.O_RDONLY)
            file = queuefile.read(fd)
            assert b"".join(queuefile.checked_message(fd, file)).endswith(b"\n\nx\n")
            os.close(fd)
            found.append((file.envelope.sender, [who.address for who in file.envelope.recipients]))
        return sorted(found)

    def check(self) -> None:
        """Nothing there has changed, and what is here is whole, each once."""
        assert self.tree() == self.before
        senders = [sender for sender, _ in self.queued()]
        assert len(set(senders)) == len(senders) and set(senders) <= set(SENDERS)

    def _unlocked(self) -> bool:
        with open("imported", "ab") as memory:
            try:
                fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def finish(self) -> None:
        wait_for(self._unlocked, "the end of what was started")  # a child outlives its parent for a moment
        assert all(finding.carried for finding in self.run())
        self.check()
        both = [b"ann@test.example", b"x@far.example"]
        assert self.queued() == sorted([(SENDERS[0], both[:1]), (SENDERS[1], both), (SENDERS[2], both)])
        assert all("imported before" in finding.what for finding in self.run())
        assert len(self.queued()) == len(SENDERS)


@pytest.fixture
def move(open_folder: Path) -> Iterator[Move]:
    here = Path.cwd()
    yield Move(open_folder)
    os.chdir(here)


@pytest.mark.parametrize("message", range(len(SENDERS)))
@pytest.mark.parametrize("steps", range(len(accept.STEPS) + 1))
def test_the_queues_process_is_killed(move: Move, monkeypatch: pytest.MonkeyPatch, steps: int, message: int) -> None:
    """After a kill at any step of any message the next run does the rest."""
    count = 0

    def kill_at_this_one(entry: object) -> None:
        nonlocal count
        count += 1
        if count > message:
            kill_me()

    with monkeypatch.context() as patch:
        changed = (*accept.STEPS[:steps], kill_at_this_one, *accept.STEPS[steps:])
        patch.setattr("qm.admin.taker.accept", lambda store, draft: accept.accept(store, draft, changed))
        with pytest.raises(QmError):
            move.run()
    move.check()
    move.finish()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("message", range(len(SENDERS)))
def test_root_is_killed(move: Move, monkeypatch: pytest.MonkeyPatch, message: int, when: str) -> None:
    """After a kill before or after what is written down of any message the next run does the rest."""
    add, count = queueimport._Memory.add, 0

    def write_down(memory: object, source: Source, message_id: bytes) -> None:
        nonlocal count
        count += 1
        if count > message and when == "before":
            kill_me()
        add(memory, source, message_id)  # type: ignore[arg-type]
        if count > message:
            kill_me()

    with monkeypatch.context() as patch:
        patch.setattr(queueimport._Memory, "add", write_down)
        assert killed(move.run) == signal.SIGKILL
    move.check()
    move.finish()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_every_call_fails(open_folder: Path, error: int) -> None:
    """Whichever call fails, in either process: what is queued is whole, and a run after that does the rest."""
    here = Path.cwd()
    for call in range(1, CALLS_MAX):
        (open_folder / str(call)).mkdir()
        move, faults = Move(open_folder / str(call)), Faults(CALLS, error)

        def fail(move: Move = move, faults: Faults = faults, call: int = call) -> None:
            with faults.at(call):
                move.try_to()

        assert killed(fail) == 0
        move.check()
        move.finish()
    os.chdir(here)


def test_a_line_that_was_cut(move: Move) -> None:
    """A line of `imported` that a crash has cut short spoils none that follows."""
    move.run()
    memory = move.home / "imported"
    lines = memory.read_bytes().splitlines(keepends=True)
    memory.write_bytes(lines[0] + lines[1][:-3])
    move.run()
    assert memory.read_bytes().splitlines()[-1] == lines[2].rstrip()
    for path in (move.home / "queue/new").iterdir():
        path.unlink()  # as if they had been delivered
    assert all("imported before" in finding.what for finding in move.run()[2:])
