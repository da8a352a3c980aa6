"""docs/SECURITY.md says who runs as whom and who owns what: compared with a suite that root has started."""

import re
from collections.abc import Iterator

import pytest

from qm.unix.privs import ROLES
from tests.harness.scene import Process, Scene
from tests.harness.suite import ROOT, Suite

MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
TABLES = (ROOT / "docs" / "SECURITY.md").read_text()


BY_HAND = (  # they are gone, or somebody must start them
    "checkpassword", "qm-pop3d", "qm-queue", "`qm cert get`, `renew`", "its child that speaks ACME",
    "its child that judges the chain", "its child that answers challenges",
)  # fmt: skip
MADE_BY_HAND = ("control/acme.key",)  # by `qm cert get`


def _rows(section: str) -> list[list[str]]:
    """The cells of the table in *section*, without its head."""
    text = TABLES.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _said() -> dict[tuple[str, int], str]:
    """As whom a program's process (0), its workers (1) and their children (2) run."""
    found: dict[tuple[str, int], str] = {}
    base = ""
    for name, role, *_ in _rows("Processes"):
        generation = 1 if name.startswith("its workers") else 2 if name.startswith("their children") else 0
        base = base if generation else name
        found[base, generation] = role
    return found


def _kind(process: Process, by_pid: dict[int, Process]) -> tuple[str, int]:
    """The name of the service in the table that it is, or descends from, and how far."""
    parent = by_pid.get(process.parent)
    if parent is None or parent.name in ("qm-supervise", "qm-start"):
        return process.name, 0
    name, generation = _kind(parent, by_pid)
    return name, generation + 1


@pytest.fixture
def busy(suite: Suite) -> Iterator[Suite]:
    """A suite whose every kind of worker is there."""
    suite.control("smtpauth", "relay.example ann secret\n", 0o600)  # after the start: without its keeper
    suite.send("ann@test.example", MESSAGE)
    suite.queue(MESSAGE, b"Fann@test.example\0Tnobody@test.example\0Tann@[127.0.0.1]\0\0")
    suite.wait_for_mail(2)
    suite.pop3().quit()
    suite.wait_for(lambda: " end user=ann " in suite.log(), "the end of the session")
    suite.wait_for(lambda: not Scene(suite).named("qm-pop3d"), "and of its process")
    with suite.under_tls("pop3s") as client:
        assert client.recv(100)[:3] == b"+OK"  # who says so has become who it must be
        yield suite


@pytest.mark.needs_root
def test_who_runs_as_whom(busy: Suite) -> None:
    """Each process has the user that the table says."""
    ids = dict(line.split(":", 1) for line in (busy.home / "control/roles").read_text().splitlines() if ":" in line)
    ids = {role: numbers.split(":")[0] for role, numbers in ids.items()}
    users = {role: {uid} for role, uid in ids.items()} | {"root": {"0"}}
    users["the recipient"] = {str((busy.home / "home/ann").stat().st_uid), ids["alias"]}
    scene = Scene(busy)
    by_pid = {process.pid: process for process in scene.processes}
    said = _said()
    seen = set()
    for process in scene.processes:
        kind = _kind(process, by_pid)
        seen.add(kind)
        assert process.uids <= users[said[kind]], (kind, process)
    by_hand = {kind for kind in said if kind[0] in BY_HAND}
    assert seen == set(said) - by_hand


@pytest.mark.needs_root
def test_who_owns_what(busy: Suite) -> None:
    """Directories and files have the owner and mode of the table."""
    roles = dict(line.split(":", 1) for line in (busy.home / "control/roles").read_text().splitlines() if ":" in line)
    for what, owner, mode, _ in _rows("Files"):
        role = owner.partition(",")[0]
        uid = 0 if role == "root" else int(roles[role].split(":")[0]) if role in ROLES else None
        for path in set(_paths(what)) - {*MADE_BY_HAND}:
            status = (busy.home / path).stat()
            assert oct(status.st_mode & 0o7777) == oct(int(mode, 8)), path
            assert status.st_uid == uid, path


def _paths(what: str) -> Iterator[str]:
    for word in re.findall(r"`([^`]+)`", what):
        before, brace, rest = word.partition("{")
        names, _, after = rest.partition("}")
        yield from (f"{before}{name}{after}" for name in names.split(",")) if brace else (word,)
