"""A private mail system for one test: real programs, ports that the kernel chooses, a home of its own.

It is made as bin/quickstart makes one and started as rc start does, but in the foreground and under ``python -bb``.  As
root its programs have roles of their own, and the home lies below a directory that only root can search, as pytest's
are.
"""

import os
import poplib
import re
import select
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from qm.disk import passwd
from qm.quickstart import home as quickstart_home
from qm.quickstart.home import Ports
from tests.harness.waiting import LIMIT_S, wait_for

T = TypeVar("T")
ROOT: Final = Path(__file__).resolve().parent.parent.parent
BIN: Final = ROOT / "bin"
START_S: Final = 30.0
STOP_S: Final = 35.0  # a little more than the supervisor allows itself
HOST: Final = "127.0.0.1"
DOMAIN: Final = "test.example"
_LABEL: Final = re.compile(r"^@[0-9a-f]{24} ", re.MULTILINE)


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Suite:
    """The mail system in *home*; it has mailbox ann@test.example with password "secret", and no more."""

    domain = DOMAIN

    def __init__(self, folder: Path) -> None:
        self.home = folder
        folder.mkdir()
        self.env: dict[str, str] = {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/bin", "QMHOME": str(folder)}
        self.allowed_alerts: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._inside(lambda: quickstart_home.make(str(ROOT), str(folder), DOMAIN, "ann"))
        (folder / "services").write_text(self._inside(lambda: quickstart_home.services(Ports(), DOMAIN)))
        self.add_user("ann", "secret")

    def _inside(self, action: Callable[[], T]) -> T:
        """Do what needs the home as current directory."""
        before = os.getcwd()
        os.chdir(self.home)
        try:
            return action()
        finally:
            os.chdir(before)

    # before or after the start

    def add_user(self, name: str, password: str, *, apop: bool = False) -> Path:
        """Make a mailbox, and give its Maildir."""
        self._inside(lambda: quickstart_home.add_mailbox(name, password))
        if apop:
            self._inside(lambda: passwd.put(name.encode(), password.encode(), apop=True))
        return self.maildir(name)

    def control(self, name: str, text: str | None, mode: int = 0o644) -> None:
        """Write a control file as an administrator would, or remove it."""
        path = self.home / "control" / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            new = path.with_suffix(".new")
            new.write_text(text)
            new.chmod(mode)
            new.rename(path)

    def service(self, name: str, command: str | None) -> None:
        """Set a line of the services file, or take it out; for the next start."""
        path = self.home / "services"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}:")]
        path.write_text("\n".join([*lines, f"{name}: {command}" if command else "", ""]))

    def dot_qmail(self, name: str, text: str, extension: str = "") -> Path:
        """Write a .qmail file of mailbox *name*, or of "alias"."""
        folder = self.home / "alias" if name == "alias" else self.home / "home" / name
        path = folder / f".qmail{extension}"
        path.write_text(text)
        path.chmod(0o600)
        os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
        return path

    # running

    def start(self) -> "Suite":
        """Start it, and come back when every service serves."""
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        command = ["/usr/bin/python3", "-bb", "-IS", str(BIN / "qm-supervise")]
        env = {**self.env, "QMREADY": str(writer)}
        with (self.home / "stdout").open("ab") as output:
            self._process = subprocess.Popen(
                command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writer]
            )
        os.close(writer)
        try:
            self._hear(reader)
        finally:
            os.close(reader)
        return self

    def _hear(self, reader: int) -> None:
        text = ""
        deadline_s = time.monotonic() + START_S
        while not text.endswith("all\n"):
            if not select.select([reader], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                raise AssertionError(f"the suite does not start; so far: {text!r}\n{self.log()}")
            data = os.read(reader, 4096)
            if not data or b"died" in data:
                raise AssertionError(f"the suite does not start: {text + data.decode()!r}\n{self.log()}")
            text += data.decode()
        for line in text.splitlines():
            word, *fields = line.split()
            if word == "ready" and len(fields) == 2:
                self._ports[fields[0]] = int(fields[1])

    def stop(self) -> None:
        """SIGTERM; everything must end in order, with exit code 0."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the suite did not stop within {STOP_S:g} s") from None
        assert code == 0, f"the suite stopped with {code}"

    def restart(self) -> "Suite":
        self.stop()
        return self.start()

    def kill(self) -> None:
        """As a power failure would: every process of the suite at once, without warning."""
        assert self._process is not None
        pids = [self._process.pid, *self.pids()]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        self._process = None
        wait_for(lambda: not any(_alive(pid) for pid in pids), "killed processes are gone")

    def signal(self, signum: int) -> None:
        """To the supervisor, which passes HUP and ALRM on."""
        assert self._process is not None
        self._process.send_signal(signum)

    def pids(self) -> list[int]:
        """The processes below the supervisor, parents first."""
        assert self._process is not None
        found = [self._process.pid]
        for pid in found:
            found += _children(pid)
        return found[1:]

    def pid_of(self, name: str) -> int:
        """The first process that calls itself *name*: the program itself, before its workers."""
        return next(pid for pid in self.pids() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name.encode()))

    @property
    def supervisor_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    # from outside

    def port(self, service: str) -> int:
        return self._ports[service]

    @property
    def smtp_port(self) -> int:
        return self.port("smtp")

    @property
    def pop3_port(self) -> int:
        return self.port("pop3")

    def smtp(self) -> smtplib.SMTP:
        return smtplib.SMTP(HOST, self.smtp_port, local_hostname="client.example", timeout=LIMIT_S)

    def send(self, recipients: str | Sequence[str], message: bytes, sender: str = "bob@elsewhere.example") -> bytes:
        """Send by SMTP; what the server said to the message."""
        with self.smtp() as client:
            client.ehlo()
            client.mail(sender)
            for recipient in [recipients] if isinstance(recipients, str) else recipients:
                code, text = client.rcpt(recipient)
                assert code == 250, (code, text)
            code, text = client.data(message)
            assert code == 250, (code, text)
            return text

    def pop3(self, name: str = "ann", password: str = "secret") -> poplib.POP3:
        client = poplib.POP3(HOST, self.pop3_port, timeout=LIMIT_S)
        client.user(name)
        client.pass_(password)
        return client

    def under_tls(self, service: str, name: str | None = DOMAIN) -> ssl.SSLSocket:
        """A connection to a service that has TLS from the first byte, which is called by *name*."""
        network = socket.create_connection((HOST, self.port(service)), LIMIT_S)
        return trusting().wrap_socket(network, server_hostname=name)

    def run(self, *argv: str, input: bytes = b"", env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[bytes]:
        """Run a program of ours, as whoever runs the tests."""
        command = ["/usr/bin/python3", "-bb", "-IS", str(BIN / argv[0]), *argv[1:]]
        return subprocess.run(
            command, input=input, env={**self.env, **env}, cwd="/", capture_output=True, timeout=60, check=False
        )

    def queue(self, message: bytes, envelope: bytes) -> int:
        """Run qm-queue with *message* on descriptor 0 and *envelope* on 1; its exit code."""
        reader, writer = os.pipe()
        with subprocess.Popen(
            ["/usr/bin/python3", "-bb", "-IS", str(BIN / "qm-queue")],
            env=self.env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=reader,
        ) as process:
            os.close(reader)
            assert process.stdin is not None
            process.stdin.write(message)
            process.stdin.close()
            with os.fdopen(writer, "wb") as file:
                file.write(envelope)
            return process.wait(60)

    # on disk

    def maildir(self, name: str = "ann") -> Path:
        return self.home / "home" / name / "Maildir"

    def mail(self, name: str = "ann") -> list[bytes]:
        """What is in a mailbox, in the order of names."""
        folder = self.maildir(name)
        return [path.read_bytes() for path in sorted([*folder.glob("new/*"), *folder.glob("cur/*")])]

    def wait_for_mail(self, count: int = 1, name: str = "ann", limit_s: float = LIMIT_S) -> list[bytes]:
        return wait_for(lambda: (m := self.mail(name))[count - 1 :] and m, f"{count} messages for {name}", limit_s)

    def wait_for_log(self, pattern: str, limit_s: float = LIMIT_S) -> re.Match[str]:
        return wait_for(lambda: re.search(pattern, self.log(), re.MULTILINE), f"{pattern!r} in the log", limit_s)

    def wait_until_idle(self, limit_s: float = LIMIT_S) -> None:
        """Until the queue is empty."""
        wait_for(self.is_idle, "an empty queue", limit_s)

    def is_idle(self) -> bool:
        """Whether the queue is empty: looked at in the order in which messages move, and again for what one leaves."""
        folders = [self.home / "queue" / name for name in ("tmp", "new", "cur")]
        return not any(os.listdir(folder) for folder in folders * 2)

    def wait_for(self, predicate: Callable[[], T], what: str = "", limit_s: float = LIMIT_S) -> T:
        return wait_for(predicate, what, limit_s)

    def log(self) -> str:
        """What the programs have said, without the time labels."""
        files = sorted(self.home.glob("log/@*")) + [path for path in [self.home / "log" / "current"] if path.exists()]
        early = (self.home / "stdout").read_text(errors="replace") if (self.home / "stdout").exists() else ""
        return early + "".join(_LABEL.sub("", path.read_text(errors="replace")) for path in files)

    def alerts(self) -> list[str]:
        """Alerts that the test has not said to expect."""
        lines = [line for line in self.log().splitlines() if "alert:" in line]
        return [line for line in lines if not any(re.search(pattern, line) for pattern in self.allowed_alerts)]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


__all__ = ["BIN", "DOMAIN", "HOST", "ROOT", "Suite", "wait_for"]
