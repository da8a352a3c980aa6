"""The processes of a running suite, as the kernel shows them: who each is, what it may, what it holds.

A process has a row name: its program, or what it is to the process of the same title that has forked it.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests.harness.dialogue import open_files
from tests.harness.suite import Suite

_WORKERS: Final = {
    "qm-queued": "qm-queued's worker",
    "qm-userd": "qm-userd's worker",
    "qm-send": "qm-send's worker",
    "qm-tlsd": "qm-tlsd's worker",
    "qm-lspawn": "qm-local",
    "qm-rspawn": "qm-remote",
}
_ID: Final = re.compile(r"/[0-9a-z]{18}[a-z]?(?=$|/)")


class Process(NamedTuple):
    pid: int
    parent: int
    title: str
    name: str  # its row
    who: str  # root, a role, or "the user"
    status: dict[str, list[str]]  # the words of /proc/PID/status
    kinds: list[str]  # of its descriptors

    @property
    def uids(self) -> set[str]:
        return set(self.status["Uid"])

    @property
    def gains(self) -> bool:
        """Whether an exec may give it rights."""
        return self.status["NoNewPrivs"] == ["0"]

    @property
    def capabilities(self) -> int:
        """Those that it has, or could take."""
        return int(self.status["CapPrm"][0], 16) | int(self.status["CapEff"][0], 16) | int(self.status["CapAmb"][0], 16)


class Scene:
    """What there is now; *others* are processes that do not descend from the suite's supervisor."""

    def __init__(self, suite: Suite, others: Iterable[int] = ()) -> None:
        self._home = f"{suite.home}"
        roles = re.findall(r"^(\w+):(\d+):", (suite.home / "control/roles").read_text(), re.MULTILINE)
        self._names = {0: "root"} | {int(uid): role for role, uid in roles}
        self._log = os.readlink(f"/proc/{suite.supervisor_pid}/fd/2")
        self._ours = {suite.port(name) for name in ("smtp", "pop3", "submit", "submits", "pop3s")}
        self._tcp = _tcp_sockets()
        self._unix = _unix_sockets()
        self.processes: list[Process] = []
        for pid in (suite.supervisor_pid, *suite.pids(), *others):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                self.processes.append(self._look(pid))

    def _look(self, pid: int) -> Process:
        lines = [line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        status = {name: text.split() for name, text in lines}
        parent, who = int(status["PPid"][0]), self._names.get(int(status["Uid"][0]), "the user")
        name = _name(title_of(pid), title_of(parent), title_of(parent_of(parent)), who)
        return Process(pid, parent, title_of(pid), name, who, status, self._kinds(pid))

    def _kinds(self, pid: int) -> list[str]:
        files = open_files(pid)
        written = {target for number, target in files.items() if _is_writer(pid, number)}
        both_ends = {target for number, target in files.items() if target in written and not _is_writer(pid, number)}
        return [self._kind(target, target in both_ends) for target in files.values()]

    def _kind(self, target: str, has_both_ends: bool) -> str:
        if target == self._log:
            return "the log"
        if target == "anon_inode:[pidfd]":
            return "its child"
        if target.startswith("anon_inode:") or (target.startswith("pipe:") and has_both_ends):
            return "its loop"  # it polls, and wakes itself by a pipe of which it has both ends
        if target.startswith("socket:"):
            return self._socket(target[8:-1])
        if target.startswith(("/memfd:", "pipe:")):
            return "a message" if "memfd" in target else "a pipe"
        path = _ID.sub("/ID", target.removeprefix(f"{self._home}/").removesuffix(" (deleted)"))
        return {self._home: "the home", "stdout": "the starter's output"}.get(path, path)

    def _socket(self, inode: str) -> str:
        if inode in self._unix:
            return self._unix[inode].removeprefix(f"{self._home}/")
        port = self._tcp.get(inode)
        if port is None:
            return "socket"
        return "listener" if port == 0 else "a client" if port in self._ours else "another host"

    def named(self, name: str) -> list[Process]:
        return [process for process in self.processes if process.name == name]


def _name(title: str, above: str, higher: str, who: str) -> str:
    """The row of a process, from what it, its parent and its parent's parent call themselves."""
    program = title.split()[0] if title else ""
    is_worker = title == above
    if program == "tcpserver":
        kind = "SMTP" if "qm-smtpd" in title else "POP3"
        if not is_worker:
            return f"tcpserver for {kind}"
        by_user = {"root": "checkpassword" if above == higher else "qm-popup", "qmailp": "qm-popup's speaker"}
        return "qm-smtpd" if kind == "SMTP" else by_user.get(who, "qm-pop3d")
    if program in _WORKERS and is_worker:
        return _WORKERS[program]
    if "/bin/qm-queue" in title:
        return "qm-queue"  # it does not change what ps shows
    return program if program.startswith("qm-") else "a program of a .qmail file"


def _is_writer(pid: int, number: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return bool(os.lstat(f"/proc/{pid}/fd/{number}").st_mode & 0o200)
    return False


def title_of(pid: int) -> str:
    """What ps shows; nothing for a process that is not there."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _tcp_sockets() -> dict[str, int]:
    """The local port of each TCP connection of this machine, by inode; 0 for one that listens."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9]: 0 if row[3] == "0A" else int(row[1].rpartition(":")[2], 16) for row in rows}


def _unix_sockets() -> dict[str, str]:
    """Unix sockets of this machine by inode: the name, or "a channel" for one without."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {row[6]: row[7] if len(row) > 7 else "a channel" for row in rows}
