"""qm import killed anywhere, and send delivers before the next run: what is over there stays as it was, and the next
run takes the rest, each message once.
"""

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.admin import queueimport
from qm.admin.findings import Finding
from qm.admin.queueimport import Source
from qm.disk import accept, queuefile, staged
from qm.errors import QmError
from qm.wire.route import Rules
from tests.crash.faults import Faults, kill_me, killed
from tests.harness.importing import Qmail, qm
from tests.harness.queueservice import ROLES
from tests.harness.suite import DOMAIN, Suite
from tests.harness.waiting import wait_for

SENDERS = (b"a@s.example", b"b@s.example", b"")
RULES = Rules(b"test.example", frozenset((b"test.example",)), frozenset(), {})
CALLS = (
    "open", "write", "writev", "fsync", "link", "unlink", "rename", "ftruncate", "close", "fork", "pread", "fstat",
    "listdir",
)  # fmt: skip
CALLS_MAX = 130  # some more than there are in the process that has most


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
        self.delivered: list[tuple[bytes, list[bytes]]] = []
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
        return found

    def send(self) -> None:
        """What send does, as far as the disk tells: what is in new/ is delivered, and nothing of it is left."""
        self.delivered += self.queued()
        for path in (self.home / "queue").glob("new/*"):
            path.unlink()

    def check(self) -> None:
        """Nothing there has changed, and what has come here is whole, each once."""
        assert self.tree() == self.before
        senders = [sender for sender, _ in self.delivered + self.queued()]
        assert len(set(senders)) == len(senders) and set(senders) <= set(SENDERS)

    def _unlocked(self) -> bool:
        with open("imported", "ab") as memory:
            try:
                fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def finish(self) -> None:
        """Send has delivered what was there; the next run brings the rest, and the one after it nothing."""
        wait_for(self._unlocked, "the end of what was started")  # a child outlives its parent for a moment
        self.send()
        assert all(finding.carried for finding in self.run())
        self.send()
        self.check()
        both = [b"ann@test.example", b"x@far.example"]
        assert sorted(self.delivered) == sorted([(SENDERS[0], both[:1]), (SENDERS[1], both), (SENDERS[2], both)])
        assert [finding.what for finding in self.run() if "imported before" not in finding.what] == []
        assert self.queued() == [] and not os.listdir("queue/import")


@pytest.fixture
def move(open_folder: Path) -> Iterator[Move]:
    here = Path.cwd()
    yield Move(open_folder)
    os.chdir(here)


def _killing(message: int) -> Callable[..., None]:
    """A step that ends the process when it comes to the message of this number."""
    count = 0

    def kill_at_this_one(_: object) -> None:
        nonlocal count
        count += 1
        if count > message:
            kill_me()

    return kill_at_this_one


@pytest.mark.parametrize("message", range(len(SENDERS)))
@pytest.mark.parametrize("steps", range(7))
def test_killed_while_a_message_is_staged(
    move: Move, monkeypatch: pytest.MonkeyPatch, steps: int, message: int
) -> None:
    """After a kill of the queue's process at any step of any message, and a send, the next run does the rest."""
    kill = _killing(message)

    def cut(store: accept.Store, draft: accept.Draft, known: tuple[accept.Step, ...]) -> accept.Accepted:
        assert len(known) == 6
        return accept.accept(store, draft, (*known[:steps], kill, *known[steps:]))

    with monkeypatch.context() as patch:
        patch.setattr("qm.admin.taker.accept", cut)
        with pytest.raises(QmError):
            move.run()
    move.check()
    move.finish()


@pytest.mark.parametrize("message", range(len(SENDERS)))
@pytest.mark.parametrize("steps", range(len(staged.RELEASE) + 1))
def test_killed_while_a_message_is_let_go(
    move: Move, monkeypatch: pytest.MonkeyPatch, steps: int, message: int
) -> None:
    """The same at any step by which a message is let go."""
    with monkeypatch.context() as patch:
        changed = (*staged.RELEASE[:steps], _killing(message), *staged.RELEASE[steps:])
        patch.setattr(staged, "RELEASE", changed)
        with pytest.raises(QmError):
            move.run()
    move.check()
    move.finish()


@pytest.mark.parametrize("steps", range(len(staged.RELEASE) + 1))
def test_killed_while_the_next_run_lets_go(move: Move, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A second kill, while the run after the first lets go what that has left, changes nothing."""
    for changed in ((_killing(1), *staged.RELEASE), (*staged.RELEASE[:steps], _killing(0), *staged.RELEASE[steps:])):
        with monkeypatch.context() as patch:
            patch.setattr(staged, "RELEASE", changed)
            with pytest.raises(QmError):
                move.run()
        move.send()
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


def _counts(suite: Suite) -> dict[str, int]:
    """How often each message is in the mailbox, by its subject."""
    subjects = [text.split(b"Subject: ", 1)[1].split(b"\n", 1)[0].decode() for text in suite.mail()]
    return {subject: subjects.count(subject) for subject in subjects}


def _waiting(suite: Suite) -> list[str]:
    return [name for folder in ("new", "cur") for name in os.listdir(suite.home / "queue" / folder)]


def _deliver(suite: Suite) -> None:
    """Have send look into new/ now: who was killed may not have told it."""
    trigger = os.open(suite.home / "queue/trigger", os.O_WRONLY | os.O_NONBLOCK)
    os.write(trigger, b"look\n")
    os.close(trigger)
    wait_for(lambda: not _waiting(suite), "what has come is delivered")


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", ["rename,renameat", "fsync", "write,writev", "sendmsg,sendto"])
def test_a_real_import_is_killed_while_send_works(
    make_suite: Callable[..., Suite], open_folder: Path, call: str
) -> None:
    """Whichever of its system calls is its last, while send delivers what has come: each message comes once."""
    suite, qmail = make_suite(open_folder).start(), Qmail(open_folder / "qmail")
    (qmail.home / "control/me").write_text(f"{DOMAIN}\n")
    command = ("import", "qmail", str(qmail.home), "--queue")
    strace = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}")
    numbers: list[int] = []
    for number in range(1, CALLS_MAX):  # each run also does what the one before has left
        envelope = {"info": b"Fs@s.example\0", "local": f"Tann@{DOMAIN}\0".encode()}
        numbers.append(qmail.message(b"Subject: %d\n\nx\n" % number, **envelope))
        done = qm(suite, *command, under=(*strace, "-e", f"inject={call}:signal=KILL:when={number}"))
        _deliver(suite)
        assert max(_counts(suite).values(), default=1) == 1
        for subject in _counts(suite):
            qmail.forget(numbers[int(subject) - 1])
        if done.returncode == 0:
            break
    assert number > 3
    assert qm(suite, *command).returncode == 0
    _deliver(suite)
    assert _counts(suite) == {str(one): 1 for one in range(1, number + 1)}
