"""docs/SECURITY.md says who runs as whom and who owns what: compared with a suite that root has started."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from qm.quickstart.home import _MAILBOX_IDS
from qm.unix.privs import ROLES
from tests.harness.suite import ROOT, Suite

MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
TABLES = (ROOT / "docs" / "SECURITY.md").read_text()


class Process(NamedTuple):
    pid: int
    parent: int
    title: str
    uids: set[str]
    gids: set[str]
    groups: list[str]
    no_new_privs: bool


def _process(pid: int) -> Process:
    """Raises FileNotFoundError, ProcessLookupError for one that has just ended."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    words = {name: text.split() for name, text in status.items()}
    title = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    nobody_more = words["NoNewPrivs"] == ["1"]
    return Process(
        pid, int(words["PPid"][0]), title, set(words["Uid"]), set(words["Gid"]), words["Groups"], nobody_more
    )


def _processes(suite: Suite) -> list[Process]:
    found = []
    for pid in (suite.supervisor_pid, *suite.pids()):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_process(pid))
    return found


def _rows(section: str) -> list[list[str]]:
    """The cells of the table in *section*, without its head."""
    text = TABLES.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _program(process: Process) -> str:
    """The process's name in the table, for the first of its kind."""
    name = process.title.split()[0]
    if name == "tcpserver":
        return f"tcpserver for {'SMTP' if 'qm-smtpd' in process.title else 'POP3'}"
    return name


def _said() -> dict[tuple[str, int], str]:
    """As whom a program's process (0), its workers (1) and their children (2) run."""
    found: dict[tuple[str, int], str] = {}
    base = ""
    for name, role, *_ in _rows("Processes"):
        generation = 1 if name.startswith("its workers") else 2 if name.startswith("their children") else 0
        base = base if generation else name
        found[base, generation] = role
    return found


def _generation(process: Process, by_pid: dict[int, Process]) -> int:
    parent = by_pid.get(process.parent)
    return 0 if parent is None or parent.title != process.title else 1 + _generation(parent, by_pid)


@pytest.fixture
def busy(suite: Suite) -> Iterator[Suite]:
    """A suite whose every kind of worker is there."""
    suite.send("ann@test.example", MESSAGE)
    suite.queue(MESSAGE, b"Fann@test.example\0Tnobody@test.example\0Tann@[127.0.0.1]\0\0")
    suite.wait_for_mail(2)
    suite.pop3().quit()
    suite.wait_for(lambda: " end user=ann " in suite.log(), "the end of the session")
    suite.wait_for(lambda: not any(_is_session(process) for process in _processes(suite)), "and of its process")
    yield suite


def _is_session(process: Process) -> bool:
    return "qm-popup" in process.title and int(min(process.uids)) in _MAILBOX_IDS


@pytest.mark.needs_root
def test_who_runs_as_whom(busy: Suite) -> None:
    """Each process has the user that the table says, by all its ids, with one group, and only root may trace it."""
    ids = dict(line.split(":", 1) for line in (busy.home / "control/roles").read_text().splitlines() if ":" in line)
    ids = {role: numbers.split(":")[0] for role, numbers in ids.items()}
    users = {role: {uid} for role, uid in ids.items()} | {"root": {"0"}}
    users["the recipient"] = {str((busy.home / "home/ann").stat().st_uid), ids["alias"]}
    processes = _processes(busy)
    by_pid = {process.pid: process for process in processes}
    said = _said()
    seen = set()
    for process in processes:
        kind = _program(process), _generation(process, by_pid)
        seen.add(kind)
        assert len(process.uids) == 1, (kind, process)
        assert process.uids <= users[said[kind]], (kind, process)
        if said[kind] != "root":
            assert process.groups == list(process.gids), (kind, process)
        assert os.stat(f"/proc/{process.pid}/mem").st_uid == 0, kind
    by_hand = {("checkpassword", 0), ("qm-pop3d", 0), ("qm-queue", 0)}  # they are gone
    assert seen == set(said) - by_hand


@pytest.mark.needs_root
def test_password_checkers_can_become_nobody_else(busy: Suite) -> None:
    """userd's workers have no_new_privs."""
    processes = _processes(busy)
    userd = {process.pid for process in processes if process.title == "qm-userd"}
    workers = [process for process in processes if process.parent in userd]
    assert workers
    assert all(process.no_new_privs for process in workers)


@pytest.mark.needs_root
def test_who_owns_what(busy: Suite) -> None:
    """Directories and files have the owner and mode of the table."""
    roles = dict(line.split(":", 1) for line in (busy.home / "control/roles").read_text().splitlines() if ":" in line)
    for what, owner, mode, _ in _rows("Files"):
        role = owner.partition(",")[0]
        uid = 0 if role == "root" else int(roles[role].split(":")[0]) if role in ROLES else None
        for path in _paths(what):
            status = (busy.home / path).stat()
            assert oct(status.st_mode & 0o7777) == oct(int(mode, 8)), path
            assert status.st_uid == uid, path


def _paths(what: str) -> Iterator[str]:
    for word in re.findall(r"`([^`]+)`", what):
        before, brace, rest = word.partition("{")
        names, _, after = rest.partition("}")
        yield from (f"{before}{name}{after}" for name in names.split(",")) if brace else (word,)


@pytest.mark.needs_root
def test_a_worker_holds_its_channel_and_the_log_only(busy: Suite) -> None:
    """A deliverer between two jobs has /dev/null, the log, and the socket to its spawner."""
    processes = _processes(busy)
    ann = str((busy.home / "home/ann").stat().st_uid)
    lspawn = {process.pid for process in processes if process.title.startswith("qm-lspawn")}
    (worker,) = (process for process in processes if process.uids == {ann} and process.parent in lspawn)
    targets = sorted(os.readlink(path).partition(":")[0] for path in Path(f"/proc/{worker.pid}/fd").iterdir())
    assert targets == ["/dev/null", "/dev/null", "pipe", "socket"]
