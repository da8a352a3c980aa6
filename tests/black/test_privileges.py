"""Who may do what, and who holds what, in each phase of a session: as root, in the whole suite.

docs/SECURITY.md is the table; this looks at the processes.  Each descriptor of each process must be one of those that
its role has a use for.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.dialogue import Dialogue, open_files
from tests.harness.suite import DOMAIN, Suite

pytestmark = pytest.mark.needs_root

ANN = f"ann@{DOMAIN}"
BEGIN = f"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
PHASES = ["smtp greeting", "smtp data", "smtp large data", "pop3 greeting", "pop3 user", "pop3 session"]
ID = "[0-9a-z]{18}"
MANY = 1000  # a spawner has a channel to each worker, or client

ROLES = {  # who it is, what its descriptors may be (paths below the home), and how many channels to other processes
    "qm-supervise": ("root", "null|log|loop|stdout|run/lock", 0),
    "qm-log": ("qmaill", "log|loop|stdout|log|log/current", 0),
    "qm-start": ("root", "null|log", 0),
    "tcpserver smtp": ("qmaild", "null|log|loop|home|listener|channel", MANY),
    "tcpserver pop3": ("root", "null|log|loop|home|listener|channel", MANY),
    "smtpd": ("qmaild", "null|log|peer|channel", 3),  # to its spawner, the queue and userd
    "popup": ("root", "null|log|peer|channel", 2),
    "speaker": ("qmailp", "null|log|peer|channel", 1),
    "pop3d": ("mailbox", "log|peer|home/ann/Maildir/pop3d.lock", 0),
    "qm-queued": ("qmailq", "null|log|loop|queue/lock|queue/socket|channel", MANY),
    "qm-queued worker": ("qmailq", f"null|log|channel|queue/(socket|tmp|new|trigger|tmp/{ID})", 1),
    "qm-userd": ("root", "null|log|loop|users/userd.lock|users/socket|users/cdb|users/passwd.cdb|channel", MANY),
    "qm-userd worker": ("qmailp", "null|log|channel", 1),
    "qm-lspawn": ("root", "null|log|loop|users/cdb|channel", MANY),
    "qm-lspawn worker": ("mailbox", "null|log|channel", 1),
    "qm-rspawn": ("qmailr", "null|log|loop|run/rspawn|channel", MANY),
    "qm-send": ("qmails", f"null|log|loop|queue/(state|cur|trigger|cur/{ID})|channel", MANY),
}


class Process(NamedTuple):
    pid: int
    role: str
    status: dict[str, str]
    kinds: list[str]  # of its descriptors

    @property
    def uid(self) -> int:
        return int(self.status["Uid"].split()[0])


class Scene:
    """The suite in one phase of one session."""

    def __init__(self, suite: Suite, client: Dialogue) -> None:
        self._home = f"{suite.home}"
        self._uids = {"root": 0, "mailbox": suite.maildir().stat().st_uid}
        for role, uid in re.findall(r"^(\w+):(\d+):", (suite.home / "control/roles").read_text(), re.MULTILINE):
            self._uids[role] = int(uid)
        self._names = {uid: role for role, uid in self._uids.items()}
        self._peer = client.inode
        self._log = os.readlink(f"/proc/{suite.supervisor_pid}/fd/2")
        self._listeners = _tcp_listeners()
        self._unix = _unix_paths()
        self.processes = [self._look(pid) for pid in (suite.supervisor_pid, *suite.pids())]

    def _look(self, pid: int) -> Process:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return Process(pid, self._role(pid, status), status, self._kinds(pid))

    def _role(self, pid: int, status: dict[str, str]) -> str:
        title = _title(pid)
        is_worker = title == _title(int(status["PPid"]))
        name = title.split()[0]
        if name == "tcpserver" and is_worker:
            who = self._names[int(status["Uid"].split()[0])]
            return {"qmaild": "smtpd", "root": "popup", "qmailp": "speaker", "mailbox": "pop3d"}[who]
        if name == "tcpserver":
            return "tcpserver smtp" if "qm-smtpd" in title else "tcpserver pop3"
        grandchild = is_worker or title.startswith("tcpserver")
        return f"{name} worker" if grandchild else name

    def _kinds(self, pid: int) -> list[str]:
        files = open_files(pid)
        return [self._kind(target, list(files.values())) for target in files.values()]

    def _kind(self, target: str, all_of_them: list[str]) -> str:
        if target == self._log:
            return "log"
        if target.startswith("anon_inode:") or (target.startswith("pipe:") and all_of_them.count(target) == 2):
            return "loop"  # it polls, and wakes itself by a pipe of which it has both ends
        if target.startswith("socket:"):
            if target == self._peer:
                return "peer"
            inode = target[8:-1]
            return "listener" if inode in self._listeners else self._unix.get(inode, target)
        return {"/dev/null": "null", self._home: "home"}.get(target, target.removeprefix(f"{self._home}/"))

    def role(self, name: str) -> Process:
        return next(process for process in self.processes if process.role == name)

    def check(self) -> None:
        for process in self.processes:
            who, allowed, channels = ROLES[process.role]
            strays = [kind for kind in process.kinds if not re.fullmatch(allowed, kind)]
            assert not strays and process.kinds.count("channel") <= channels, (process.role, process.kinds)
            uids, gids = process.status["Uid"].split(), process.status["Gid"].split()
            assert set(uids) == {str(self._uids[who])}, process
            if who != "root":
                assert process.status["Groups"].split() == gids[:1] == list(set(gids)), process
                assert int(process.status["CapEff"], 16) == int(process.status["CapPrm"], 16) == 0, process


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()


def _tcp_listeners() -> set[str]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def _unix_paths() -> dict[str, str]:
    """Unix sockets of this machine by inode: the name, or "channel" for one without."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {fields[6]: fields[7] if len(fields) > 7 else "channel" for fields in lines}


@contextmanager
def _in_phase(suite: Suite, phase: str) -> Iterator[Dialogue]:
    """A client in the middle of *phase*."""
    with Dialogue(suite.port(phase.split()[0])) as client:
        assert client.line()[:3] in (b"220", b"+OK")
        if phase in ("smtp data", "smtp large data"):
            client.say(BEGIN)
            assert client.codes(4) == [250, 250, 250, 354]
            client.say(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * (300 if "large" in phase else 1))
            if "large" in phase:
                suite.wait_for(lambda: os.listdir(suite.home / "queue/tmp"), "a file that grows")
        if phase in ("pop3 user", "pop3 session"):
            client.say(b"USER ann\r\n")
            assert client.line() == b"+OK"
        if phase == "pop3 session":
            assert client.ask(b"PASS secret").startswith(b"+OK")
            assert client.ask(b"STAT").startswith(b"+OK")
        yield client


def test_every_process_is_who_it_should_be_and_has_what_it_needs(suite: Suite) -> None:
    """No identity, group, capability or descriptor but those of its role, in any phase; and the network is not root's.

    smtpd's connection is no root process's at all.  popup's is held by a root process, which waits for those who read.
    """
    suite.send(ANN, b"Subject: first\r\n\r\nx\r\n")
    suite.wait_for_mail()
    suite.wait_until_idle()
    for phase in PHASES:
        with _in_phase(suite, phase) as client:
            scene = Scene(suite, client)
            scene.check()
            holders = {process.role: process for process in scene.processes if "peer" in process.kinds}
            reader = "smtpd" if "smtp" in phase else "pop3d" if "session" in phase else "speaker"
            assert holders.keys() == ({"smtpd"} if "smtp" in phase else {"popup", reader}), phase
            assert holders[reader].uid != 0
            if "popup" in holders:
                assert not _waits_for(holders["popup"].pid, {0, 1})


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
    strays = {t for t in targets if not re.match(r"/memfd:message|pipe:|/proc/|/dev/null|.*/home/ann/fds$", t)}
    assert not strays
    owner = suite.maildir().stat()
    assert (suite.home / "home/ann/id").read_text().split() == [str(owner.st_uid), str(owner.st_gid)]
