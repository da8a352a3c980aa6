"""The processes of a running suite, as the kernel shows them: who each is, what it may, what it holds.

A process has a row name: its program, or what it is to that.
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
    "qm-queued: takes messages in": "qm-queued's worker",
    "qm-userd: checks passwords": "qm-userd's worker",
    "qm-send: writes reports": "qm-send's worker",
    "qm-tlsd: speaks TLS": "qm-tlsd's worker",
    "qm-local: delivers": "qm-local",
    "qm-remote: sends": "qm-remote",
    "qm-rspawn: keeps logins": "qm-rspawn's keeper",
    "qm-popup: talks to clients": "qm-popup's speaker",
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
        title = title_of(pid)
        return Process(pid, parent, title, _name(title), who, status, self._kinds(pid))

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
            return "a login" if "memfd:login" in target else "a message" if "memfd" in target else "a pipe"
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


def _name(title: str) -> str:
    """The row of a process, from what it calls itself."""
    if title in _WORKERS:
        return _WORKERS[title]
    program = title.split()[0] if title else ""
    if program == "tcpserver":
        return f"tcpserver for {'SMTP' if 'qm-smtpd' in title else 'POP3'}"
    if program == "tcpserver:":
        return title.split()[1]
    if "/bin/qm-queue" in title:
        return "qm-queue"  # it does not change what ps shows
    return program if program.startswith(("qm-", "checkpassword")) else "a program of a .qmail file"


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


def _tcp_sockets() -> dict[str, int]:
    """The local port of each TCP connection of this machine, by inode; 0 for one that listens."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9]: 0 if row[3] == "0A" else int(row[1].rpartition(":")[2], 16) for row in rows}


def _unix_sockets() -> dict[str, str]:
    """Unix sockets of this machine by inode: the name, or "a channel" for one without."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {row[6]: row[7] if len(row) > 7 else "a channel" for row in rows}
