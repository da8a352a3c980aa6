"""A home for tests of single programs: root's with roles of its own, or one user's without privileges."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.harness.suite import BIN, ROOT
from tests.harness.waiting import wait_for

OWNER: Final = 64123  # uid and gid of a private system's owner, when the tests run as root
MAILBOX: Final = 64124  # of a mailbox, in a system of root's
_NAMES: Final = ("alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails", "qmailt")
ROLES: Final = {name: 64001 + number for number, name in enumerate(_NAMES)}
START_S: Final = 20.0


class BareHome:
    """Programs run in *folder* as *uid*; None is whoever runs the tests."""

    def __init__(self, folder: Path, uid: int | None) -> None:
        self.folder = folder
        self.uid = uid
        self.mailbox_uid = os.getuid() if uid is None and os.geteuid() else uid or MAILBOX
        folder.mkdir()
        for name in ("control", "users", "alias", "home", "home/ann"):
            (folder / name).mkdir()
        self.control("me", "me.example\n")
        self.control("roles", "".join(f"{role}:{number}:64000\n" for role, number in ROLES.items()))
        self.assign("ann")
        self.own()

    def own(self) -> None:
        """Give everything to the owner, as if he had made it."""
        if self.uid is not None:
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def control(self, name: str, text: str) -> None:
        path = self.folder / "control" / name
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def assign(self, *names: str) -> None:
        """Write users/assign for mailboxes in home/."""
        user = "{0}:{1}:{1}:home/{0}"
        lines = [f"={name}:{user}:::\n+{name}-:{user}:-::\n".format(name, self.mailbox_uid) for name in names]
        (self.folder / "users" / "assign").write_text("".join([*lines, ".\n"]))

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["/usr/bin/python3", "-bb", "-IS", str(BIN / argv[0]), *argv[1:]]

    def environment(self) -> dict[str, str]:
        """The home is the directory where programs start: its owner may be unable to reach it from above."""
        return {"PATH": "/usr/bin:/bin", "QMHOME": "."}

    def run(self, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end, without a terminal."""
        return subprocess.run(
            self.command(argv), input=input, cwd=self.folder, env=self.environment(), user=self.uid, group=self.uid,
            extra_groups=None if self.uid is None else [], capture_output=True, start_new_session=True, timeout=60,
            check=False,
        )  # fmt: skip

    def python(self, code: str, uid: int | None) -> bytes:
        """What a Python program of the test's says, which runs in the home as *uid*."""
        code = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n{code}"
        result = subprocess.run(
            ["/usr/bin/python3", "-bb", "-ISc", code], cwd=self.folder, env={}, user=uid, group=uid,
            extra_groups=None if uid is None else [], capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return result.stdout + result.stderr


@contextmanager
def bare_home(uid: int | None) -> Iterator[BareHome]:
    """A home in a directory that everybody can search; pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="qm-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        yield BareHome(Path(folder) / "home", uid)


class Daemon:
    """A program of ours in the foreground, that has said that it serves."""

    def __init__(self, home: BareHome, *argv: str, prefix: Sequence[str] = ()) -> None:
        self._log = home.folder / f"log.{argv[0]}"
        reader, writer = os.pipe()
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *home.command(argv)], cwd=home.folder, env={**home.environment(), "QMREADY": str(writer)},
                pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=home.uid, group=home.uid,
                extra_groups=None if home.uid is None else [],
            )  # fmt: skip
        os.close(writer)
        ready = select.select([reader], [], [], START_S)[0] and os.read(reader, 1)
        os.close(reader)
        if not ready:
            self.kill()
            raise AssertionError(f"{argv[0]} does not start: {self.log()}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log(), f"{text!r} in the log")

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(home: BareHome, *argv: str, prefix: Sequence[str] = ()) -> Iterator[Daemon]:
    """A daemon that must end well, without a word that alarms."""
    daemon = Daemon(home, *argv, prefix=prefix)
    try:
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.stop() == 0
        assert "alert:" not in daemon.log()
    except BaseException:
        sys.stderr.write(daemon.log())
        raise
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Hold processes still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # the test has killed it
                os.kill(pid, signal.SIGCONT)
