"""A process of each kind is taken over while the suite works, and tries everything: what worked is in SECURITY.md.

What worked needs a reason in REASONS below; what has none is a hole.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import pytest

from tests.harness import marked
from tests.harness.busy import Busy, busy
from tests.harness.scene import Process
from tests.harness.suite import DOMAIN, ROOT, Suite
from tests.harness.takeover import TakenOver

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("gdb")]

SINK: Final = f"sink@{DOMAIN}"
PROGRAM: Final = "a program of a .qmail file"
TRACED: Final = "say where a message came from"
OWN: Final = "processes of its own user"
QUEUE: Final = "qm-queued", "qm-queued's worker"
SEND: Final = "qm-send", "qm-send's worker"
SMTP: Final = "tcpserver for SMTP", "qm-smtpd"
LOGIN: Final = "qm-popup's speaker", "qm-userd's worker"
REMOTE: Final = "qm-rspawn", "qm-remote"
ANN: Final = "qm-local as ann", "qm-pop3d as ann"
USERS: Final = *ANN, "qm-local as alias", PROGRAM
MEN: Final = *ANN, PROGRAM
TLS: Final = ("qm-tlsd's worker",)
ALL: Final = *QUEUE, *SEND, *SMTP, *LOGIN, *TLS, *REMOTE, *USERS, "qm-log"
_QUEUE_IS_THEIRS: Final = "the queue is theirs"
_SEND_MOVES: Final = "send moves and removes messages, and writes down what has happened to them"
_SAME: Final = "the kernel lets a user's processes do this to one another; no role is another's user"
_OWN_MAIL: Final = "it is this user"

_EXECD: Final = "only those that were exec'd, a user's own commands"
_HOME: Final = "alias/ is that user's home"

REASONS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "read messages in the queue": {_QUEUE_IS_THEIRS: QUEUE, "send reads them": SEND},
    "read who has got a message": {_QUEUE_IS_THEIRS: QUEUE, _SEND_MOVES: SEND},
    "change an accepted message": {_QUEUE_IS_THEIRS: QUEUE},
    "change who has got a message": {_SEND_MOVES: SEND},
    "make and remove messages of the queue": {_QUEUE_IS_THEIRS: QUEUE, _SEND_MOVES: SEND},
    "leave an MTA-STS policy": {"what it knows of other domains is theirs": REMOTE},
    "wake send": {"who puts a message into the queue does": QUEUE, "it is send's": SEND},
    "take the queue's lock": {_QUEUE_IS_THEIRS: QUEUE},
    "replace the queue's socket": {_QUEUE_IS_THEIRS: QUEUE},
    "read the log": {"it writes the log": ("qm-log",)},
    "change the log": {"it writes the log": ("qm-log",)},
    "make and remove log files": {"it writes the log": ("qm-log",)},
    "write a line into the log": {"each program of ours has the writing end of one pipe": (*ALL,)},
    "read ann's mail": {_OWN_MAIL: ANN},
    "change ann's mail": {_OWN_MAIL: ANN},
    "put mail into ann's Maildir": {_OWN_MAIL: ANN},
    "make an alias": {_HOME: ("qm-local as alias",)},
    "change an alias": {_HOME: ("qm-local as alias",)},
    "put a message into the queue": {"every user of the machine may": ALL},
    TRACED: {"qmaild is believed: it takes the mail of others in": SMTP, _QUEUE_IS_THEIRS: QUEUE},
    "choose a message's ID": {"a report's ID is made of the message's": SEND, _QUEUE_IS_THEIRS: QUEUE},
    "ask userd for a mailbox": {"the roles that talk to strangers may": (*SMTP, *LOGIN)},
    "ask userd whether a password is right": {"the roles that talk to strangers may": (*SMTP, *LOGIN)},
    "connect to a TCP service": {"every user may; there is no wall but identity": ALL},
    "signal": {_SAME: ALL},
    "change the limits of": {_SAME: ALL},
    "trace": {_EXECD: MEN},
    "write into the memory of": {_EXECD: MEN},
    "take descriptors of": {_EXECD: MEN},
    "see the descriptors of": {_EXECD: MEN},
    "read the environment of": {_EXECD: MEN},
    "be root by a set-user-ID program": {"a user's own programs may run what he may": USERS},
}


class Try(NamedTuple):
    who: str
    what: str
    on: str  # whose process, where that is asked


def _label(process: Process, ann: str) -> str:
    if process.who in ("alias", "the user") and process.name in ("qm-local", "qm-pop3d"):
        return f"{process.name} as {'alias' if process.who == 'alias' else 'ann' if ann in process.uids else 'another'}"
    return process.name


class Raid:
    """One hostile process of each kind, in a suite that works."""

    def __init__(self, held: Busy, folder: Path) -> None:
        self._held = held
        self._suite = held.suite
        self._folder = folder / "found"
        self._folder.mkdir()
        self._plan = folder / "plan"
        self._set_user_id = folder / "id"
        shutil.copy("/usr/bin/id", self._set_user_id)
        self._set_user_id.chmod(0o4755)
        self._ann = str(self._suite.maildir().stat().st_uid)
        held.release("qm-queued")
        self._suite.wait_for_log("^bounce msg ")
        nobodys = ("qm-local as another", "qm-pop3d as another", "qm-queue", PROGRAM)
        taken = {_label(process, self._ann): process for process in held.look().processes if process.who != "root"}
        self._taken = {name: process for name, process in taken.items() if name not in nobodys}
        self._victims: dict[int, Process] = {}

    @contextmanager
    def _planning(self) -> Iterator[None]:
        """Within, processes are taken over; they begin after it, when userd goes on, and with it who asks it."""
        with open(self._plan, "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            self._held.release()
            self._suite.wait_for(lambda: not self._held.look().named("checkpassword"), "a login that goes on")
            self._victims = {process.pid: process for process in self._held.look().processes}
            self._write_plan(file)

    def _write_plan(self, file: TextIO) -> None:
        supervisor = self._suite.supervisor_pid
        plan = {
            "home": f"{self._suite.home}",
            "root": f"{ROOT}",
            "path": [f"{ROOT}", *sys.path],
            "victims": list(self._victims),
            "sink": SINK,
            "port": self._suite.smtp_port,
            "log": os.readlink(f"/proc/{supervisor}/fd/2"),
            "set_user_id": f"{self._set_user_id}",
        }
        json.dump(plan, file)

    def run(self) -> set[Try]:
        """What worked, and for whom."""
        taken = {name: TakenOver(self._folder, f"{number}", self._plan) for number, name in enumerate(self._taken)}
        with self._planning(), ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name: taken[name].process(self._taken[name].pid), taken))
        taken[PROGRAM] = TakenOver(self._folder, f"{len(taken)}", self._plan)
        self._taken[PROGRAM] = next(process for process in self._victims.values() if process.name == PROGRAM)
        self._suite.dot_qmail("joe", f"|{taken[PROGRAM].command}\n", "-hostile")
        self._suite.send(f"joe-hostile@{DOMAIN}", b"Subject: x\r\n\r\nx\r\n")
        found = {name: each.found() for name, each in taken.items()}
        self._suite.wait_for_log("success: did_0", 60)
        self._suite.send(SINK, b"Subject: the last one\r\n\r\nx\r\n")
        self._suite.wait_for(lambda: any(b"the last one" in mail for mail in self._suite.mail("sink")), "the last one")
        marks = {each.result.name: name for name, each in taken.items()}
        return set(self._worked(found)) | {Try(marks[mark], TRACED, "") for mark in self._traces()}

    @contextmanager
    def crowd(self, *names: str) -> Iterator[dict[str, int]]:
        """Have processes hold connections; how many each has got."""
        taken = {name: TakenOver(self._folder, f"{number}", self._plan) for number, name in enumerate(names)}
        found: dict[str, Any] = {}
        try:
            with self._planning():
                for name in names:
                    taken[name].process(self._taken[name].pid, "crowd")
            for name in names:
                found[name] = taken[name].found()
            yield {name: each["held"] for name, each in found.items()}
        finally:
            for each in found.values():
                os.kill(each["pid"], signal.SIGKILL)

    def check_queue_by_hand(self) -> None:
        """A user who is none of them hands a message in."""
        done = self._suite.queue(b"Subject: by hand\n\nx\n", f"F\0T{SINK}\0\0".encode())
        assert done == 0
        self._suite.wait_for(lambda: any(b"by hand" in mail for mail in self._suite.mail("sink")), "that message")

    def _traces(self) -> Iterator[str]:
        for mail in self._suite.mail("sink"):
            _, found, rest = mail.partition(b"Received: from hostile by ")
            if found:
                yield rest.split()[0].decode()

    def _worked(self, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Try]:
        for who, tries in found.items():
            for what, result in tries.items():
                assert result != {"error": "died"}, (who, what)
                if isinstance(result, list):
                    yield from (Try(who, what, self._whose(who, pid)) for pid in result)
                elif result is True:
                    yield Try(who, what, "")

    def _whose(self, who: str, pid: int) -> str:
        victim = self._victims[pid]
        return OWN if victim.uids == self._taken[who].uids else victim.name


def _why(worked: Try) -> str:
    if worked.on not in ("", OWN):
        return ""
    return next((why for why, names in REASONS.get(worked.what, {}).items() if worked.who in names), "")


@pytest.fixture
def raided(make_suite: Callable[..., Suite], open_folder: Path, tmp_path: Path) -> Iterator[tuple[Busy, Raid]]:
    suite = make_suite(open_folder)
    suite.add_user("sink", "secret")
    with busy(suite, tmp_path) as held:
        fay = suite.maildir("fay") / "new/1.kept"
        fay.write_text("mail for fay\n")
        os.chown(fay, fay.parent.stat().st_uid, -1)
        fay.chmod(0o600)
        yield held, Raid(held, open_folder)


def test_what_a_hostile_process_can_do(raided: tuple[Busy, Raid], pytestconfig: pytest.Config) -> None:
    """Taken over, each process can do what the table says, each line with its reason; then mail moves as before."""
    held, raid = raided
    worked = raid.run()
    holes = [each for each in sorted(worked) if not _why(each)]
    assert not holes, "\n".join(map(str, holes))
    assert {each.who for each in worked} == set(ALL), "somebody was not tried"
    rows = [_row(worked, what, why) for what, reasons in REASONS.items() for why in reasons]
    marked.compare("tries", marked.table(("could", "who", "why"), rows), pytestconfig)
    _check_that_it_works(held.suite)


def _row(worked: set[Try], what: str, why: str) -> tuple[str, str, str]:
    found = [each for each in worked if each.what == what and _why(each) == why]
    names = {each.who for each in found}
    assert names, f"nobody could {what}: a reason too many"
    missing = [name for name in ALL if name not in names]
    but = f" but {missing[0]}" if missing else ""
    who = f"all{but}" if len(missing) < 2 else ", ".join(name for name in ALL if name in names)
    return f"{what} {OWN}" if found[0].on else what, who, why


def _check_that_it_works(suite: Suite) -> None:
    suite.send(f"ann@{DOMAIN}", b"Subject: still here\r\n\r\nx\r\n")
    suite.wait_for(lambda: any(b"still here" in mail for mail in suite.mail()), "mail after all that")
    suite.pop3("fay").quit()


def test_a_crowd_at_our_doors_keeps_nobody_out(raided: tuple[Busy, Raid]) -> None:
    """Processes that hold all the connections they get, and say nothing, stop neither mail nor logins."""
    held, raid = raided
    with raid.crowd(*REMOTE, "qm-local as ann", "qm-log", "qm-popup's speaker") as held_by:
        assert sum(held_by.values()) > 100, held_by  # they are in one another's way, too
        _check_that_it_works(held.suite)
        raid.check_queue_by_hand()
