"""Who may do what, and who holds what, while mail moves by every way: as root, in the whole suite.

docs/SECURITY.md has the table; this makes it of the processes themselves.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.harness import marked
from tests.harness.busy import busy, in_pop3_session, in_smtp_data
from tests.harness.dialogue import Dialogue
from tests.harness.scene import Process, Scene
from tests.harness.suite import DOMAIN, Suite

pytestmark = pytest.mark.needs_root

ANN: Final = f"ann@{DOMAIN}"
PHASES: Final = ["smtp greeting", "smtp data", "smtp large data", "pop3 greeting", "pop3 user", "pop3 session"]
SPAWNERS: Final = {  # each has a channel to each of its workers, or clients
    *("qm-start", "qm-queued", "qm-userd", "qm-lspawn", "qm-rspawn", "qm-send", "qm-tlsd"),
    "tcpserver for SMTP",
    "tcpserver for POP3",
}
HEAD: Final = ("process", "runs as", "capabilities", "an exec may give rights", "holds, beside 0 and 1 without use")


def _held(processes: list[Process]) -> str:
    """Every kind of descriptor that one of them has, and how many channels the one with most."""
    kinds = {kind for process in processes for kind in process.kinds} - {"/dev/null"}
    channels = max(process.kinds.count("a channel") for process in processes)
    if channels > 1:
        kinds.remove("a channel")
        kinds.add("channels" if processes[0].name in SPAWNERS else f"{channels} channels")
    return ", ".join(sorted(kinds))


def _row(processes: list[Process]) -> tuple[str, ...]:
    name = processes[0].name
    capabilities = {"all" if process.capabilities else "none" for process in processes}
    gains = {"yes" if process.gains else "no" for process in processes}
    who = {process.who for process in processes}
    return name, *(", ".join(sorted(words)) for words in (who, capabilities, gains)), _held(processes)


def _check(process: Process) -> None:
    """What holds for each, whatever the table says."""
    assert len(process.uids) == len(set(process.status["Gid"])) == 1, process
    if process.who != "root":
        assert process.capabilities == 0, process
        assert process.status["Groups"] in ([], process.status["Gid"][:1]), process
    if not process.title.startswith("/usr/bin/python3") and process.name != "a program of a .qmail file":
        assert os.stat(f"/proc/{process.pid}/mem").st_uid == 0, f"another than root may trace it: {process}"


def test_the_table_is_what_is_seen(
    make_suite: Callable[..., Suite], open_folder: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Mail by each way, each act held in its middle: who is there, with which rights, holding what."""
    with busy(make_suite(open_folder), tmp_path) as held:
        scene = held.look()
        for process in scene.processes:
            _check(process)
        names = list(dict.fromkeys(process.name for process in scene.processes))
        text = marked.table(HEAD, [_row(scene.named(name)) for name in names])
    marked.compare("processes", text, pytestconfig)


@contextmanager
def _in_phase(suite: Suite, phase: str) -> Iterator[Dialogue]:
    """A client in the middle of *phase*."""
    with Dialogue(suite.port(phase.split()[0])) as client:
        if phase in ("smtp data", "smtp large data"):
            in_smtp_data(client, 300 if "large" in phase else 1)
            if "large" in phase:
                suite.wait_for(lambda: os.listdir(suite.home / "queue/tmp"), "a file that grows")
        elif phase == "pop3 session":
            in_pop3_session(client)
        else:
            assert client.line()[:3] in (b"220", b"+OK")
            if phase == "pop3 user":
                assert client.ask(b"USER ann") == b"+OK"
        yield client


def test_the_network_is_not_roots(suite: Suite) -> None:
    """smtpd's connection is no root process's at all; popup's is held by one, which waits for those who read."""
    suite.send(ANN, b"Subject: first\r\n\r\nx\r\n")
    suite.wait_for_mail()
    for phase in PHASES:
        with _in_phase(suite, phase) as client:
            reader = "qm-smtpd" if "smtp" in phase else "qm-pop3d" if "session" in phase else "qm-popup's speaker"
            wanted = {reader} if "smtp" in phase else {"qm-popup", reader}
            # tcpserver may still have to close its own
            suite.wait_for(lambda wanted=wanted, client=client: _holders(suite, client).keys() == wanted, phase)
            holders = _holders(suite, client)
            assert holders[reader].who != "root"
            if "qm-popup" in holders:
                assert not _waits_for(holders["qm-popup"].pid, {0, 1})


def _holders(suite: Suite, client: Dialogue) -> dict[str, Process]:
    pids = client.holders(suite.pids())
    return {process.name: process for process in Scene(suite).processes if process.pid in pids}


def _waits_for(pid: int, descriptors: set[int]) -> bool:
    """Whether a process sleeps in a system call that begins with one of *descriptors*, as a read does, or polls one."""
    number, first, second, *_ = (int(word, 0) for word in Path(f"/proc/{pid}/syscall").read_text().split())
    if number not in (7, 73, 271):  # poll and ppoll of x86-64, ppoll of arm64
        return first in descriptors and number not in (61, 95, 247, 260)  # wait4 and waitid
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(first)
        polled = memory.read(8 * second)
    return any(int.from_bytes(polled[at : at + 4], "little") in descriptors for at in range(0, len(polled), 8))


def test_a_user_gets_no_more_than_his_message(suite: Suite) -> None:
    """A program of a .qmail file has the message and its output, runs as its user, and sees no descriptor of ours."""
    suite.dot_qmail("ann", "|ls -l /proc/self/fd /proc/$PPID/fd >fds; id -u >id; id -G >>id\n")
    suite.send(ANN, b"Subject: x\r\n\r\nx\r\n")
    suite.wait_for_log(r"delivery \d+: success")
    text = (suite.home / "home/ann/fds").read_text()
    targets = {line.rpartition(" -> ")[2] for line in text.splitlines() if " -> " in line}
    strays = {t for t in targets if not t.startswith(("/memfd:message", "pipe:", "/proc/", "/dev/null"))}
    assert strays <= {f"{suite.home}/home/ann/fds"}
    owner = suite.maildir().stat()
    assert (suite.home / "home/ann/id").read_text().split() == [str(owner.st_uid), str(owner.st_gid)]
