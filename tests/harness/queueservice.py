"""The queue service alone, as a real process in a home of its own."""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qm.disk import queuefile
from qm.unix.queueclient import QueueClient
from qm.wire.envelope import Envelope, Recipient
from tests.harness.suite import BIN, START_S
from tests.harness.waiting import wait_for

PYTHON: Final = ("/usr/bin/python3", "-bb", "-IS")
ROLES: Final = {"alias": 60004, "qmaild": 60001, "qmailq": 60002, "qmails": 60003}
ENVELOPE: Final = Envelope(b"a@b.example", (Recipient(b"c@d.example"),))


class QueueService:
    """In *home*; as root it has roles of its own, otherwise everything is us."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {"QMHOME": str(home), "PATH": "/usr/sbin:/usr/bin:/bin"}
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (home, home / "control", home / "queue"):
            folder.mkdir()
        self.control("me", "test.example\n")
        if os.geteuid() == 0:
            self.control("roles", "".join(f"{role}:{uid}:60000\n" for role, uid in ROLES.items()))
            os.chown(home / "queue", ROLES["qmailq"], 60000)
            (home / "queue").chmod(0o751)

    def control(self, name: str, text: str) -> None:
        (self.home / "control" / name).write_text(text)

    def start(self, before: Sequence[str] = ()) -> "QueueService":
        """Start it, by the command *before* if there is one, and come back when it serves."""
        reader, writer = os.pipe()
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*before, *PYTHON, str(BIN / "qm-queued")],
                env={**self.env, "QMREADY": str(writer)},
                stderr=log,
                pass_fds=[writer],
            )
        os.close(writer)
        try:
            assert select.select([reader], [], [], START_S)[0], "no word from the service"
            assert os.read(reader, 1) == b"\n", self.log()
        finally:
            os.close(reader)
        return self

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process = None
        return code

    def kill(self) -> None:
        """Every process of it at once, as a power failure would."""
        assert self.process is not None
        pids = [self.process.pid, *self.workers()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        wait_for(lambda: not any(map(_lives, pids)), "the end of the killed")

    def workers(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def client(self, timeout_s: float = 30.0) -> QueueClient:
        return QueueClient(str(self.home / "queue/socket"), timeout_s)

    def put(self, message: bytes = b"Subject: x\n\nbody\n", client: QueueClient | None = None) -> bytes:
        """Queue one message; its ID."""
        mine = client or self.client()
        try:
            submission = mine.begin()
            submission.write(message)
            return submission.commit(ENVELOPE).name
        finally:
            if client is None:
                mine.close()

    def run_queue(
        self, message: bytes = b"body\n", envelope: bytes = b"Fa@b\0Tc@d\0\0", user: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run qm-queue the command; by a relative path, since only root may search pytest's directories."""
        fd = os.memfd_create("envelope")
        os.write(fd, envelope)
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            return subprocess.run(
                [*PYTHON, str(BIN / "qm-queue")],
                env={**self.env, "QMHOME": ".", **env},
                cwd=self.home,
                input=message,
                stdout=fd,  # from which it reads
                stderr=subprocess.PIPE,
                user=user,
                timeout=60,
                check=False,
            )
        finally:
            os.close(fd)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(self.home / "queue" / folder))

    def message(self, name: bytes | str, folder: str = "new") -> bytes:
        """The message of a queue file, which must be whole."""
        fd = os.open(self.home / "queue" / folder / os.fsdecode(name), os.O_RDONLY)
        try:
            return b"".join(queuefile.checked_message(fd, queuefile.read(fd)))
        finally:
            os.close(fd)

    def messages(self) -> list[bytes]:
        return [self.message(name) for name in self.names("new")]

    def log(self) -> str:
        return (self.home / "log").read_text()


def _lives(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
