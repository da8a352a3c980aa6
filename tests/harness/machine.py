"""A machine of a test's own, as far as an installation goes: what is written to the system's directories stays in it.

It is a mount namespace in which those directories have a layer on top; network and processes are the real ones.  Its
administrator is root, so its tests need root.
"""

import os
import pwd
import re
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.harness.suite import BIN, HOST
from tests.harness.waiting import LIMIT_S, wait_for

OVERLAID: Final = ("/etc", "/usr/sbin", "/usr/lib", "/usr/local/share")
_MAKE: Final = """
set -e
mount -t tmpfs layer "$1"
for folder in /etc /usr/sbin /usr/lib /usr/local/share; do
    mkdir -p "$1$folder/upper" "$1$folder/work"
    mount -t overlay -o "lowerdir=$folder,upperdir=$1$folder/upper,workdir=$1$folder/work" layer "$folder"
done
mount -t tmpfs run /run
rm -f /usr/sbin/sendmail /usr/lib/sendmail
echo made
exec cat
"""
Done = subprocess.CompletedProcess[str]


class Running:
    """A command line that goes on running, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.port = 0
        self._log = log

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()


class Machine:
    """*folder* is on the real machine too, and everybody can reach it; the mail system's home is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "qm"
        self._layer = folder / "layer"
        self._layer.mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _MAKE, "sh", str(self._layer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"made\n":
            self.end()
            pytest.skip("needs mount namespaces with layers")

    def run(self, *argv: str | Path, cwd: Path | None = None, user: str = "", input: str = "") -> Done:
        """Run a command there, as *user* if not as root; what it says, both descriptors together, is its stdout."""
        be = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"] if user else []
        return subprocess.run(
            [*self._enter(cwd or Path("/")), *be, *map(str, argv)], input=input, env=self._env(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip

    def _enter(self, folder: Path) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={folder}", "--"]

    def _env(self) -> dict[str, str]:
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": f"{self.home}/bin:{system}", "LANG": "C.UTF-8"}

    def begin(self, line: str) -> Running:
        """A line as the guides have it, that goes on running; with its port, where it is a tcpserver."""
        log = self.folder / f"log{len(list(self.folder.glob('log*')))}"
        reader, writer = os.pipe()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._enter(self.home), "sh", "-c", f"exec {line}"],
                env={**self._env(), "QMREADY": str(writer)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
            )
        os.close(writer)
        running = Running(process, log)
        if line.startswith("tcpserver"):
            running.port = int(_hear(reader) or 0)
            assert running.port, running.log()
        elif line.startswith("/usr/bin/tcpserver -1 "):
            running.port = int(wait_for(running.log, "the port"))
        os.close(reader)
        return running

    def succeed(self, *argv: str | Path, cwd: Path | None = None, user: str = "", input: str = "") -> str:
        done = self.run(*argv, cwd=cwd, user=user, input=input)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def sh(self, line: str, **options: str) -> str:
        """A line as the guides have it, typed in the home."""
        return self.succeed("sh", "-c", line, cwd=self.home, **options)

    def qm(self, *words: str) -> Done:
        """The command of the checkout."""
        return self.run(BIN / "qm", *words, "--home", self.home)

    def install(self, *words: str) -> str:
        done = self.qm("install", "mail.test.example", *words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def choose_ports(self) -> None:
        """Have the services on ports that the kernel chooses, of this host's loopback."""
        path = self.home / "services"
        path.write_text(re.sub(r" (?:0|127\.0\.0\.1) (?:25|110|465|587|995) ", f" {HOST} 0 ", path.read_text()))

    def start(self) -> dict[str, int]:
        """rc start; the ports."""
        said = self.succeed(self.home / "rc", "start")
        return {name: int(port) for name, port in re.findall(r"(\w+): ready, port (\d+)", said)}

    def hide(self, folder: Path) -> None:
        """Have nothing in *folder*, as on a machine that has no such thing."""
        self.succeed("mount", "-t", "tmpfs", "hidden", folder)

    def lose_power(self) -> None:
        """End all processes of the mail system at once."""
        rows = (self.home / "run/status").read_text().splitlines()[1:]
        os.kill(int((self.home / "run/lock").read_text()), signal.SIGKILL)
        for row in rows:
            os.killpg(int(row.split("\t")[1]), signal.SIGKILL)

    def uid(self, name: str) -> int:
        return int(self.succeed("id", "-u", name))

    def add_user(self, name: str, *options: str) -> Path:
        """An account with a home, and "secret" as its password."""
        home = self.folder / name
        self.succeed("useradd", "--create-home", "--home-dir", home, *options, name)
        self.succeed("chpasswd", "-c", "SHA512", input=f"{name}:secret\n")
        return home

    def written(self) -> set[str]:
        """What has been written to the system's directories."""
        uppers = [self._inside(f"{self._layer}{folder}/upper") for folder in OVERLAID]
        return {str(path.relative_to(upper)) for upper in uppers for path in upper.rglob("*") if not path.is_dir()}

    def _inside(self, path: str) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def path(self, path: str) -> Path:
        """A path there, for looking at it from here."""
        return self._inside(path)

    def end(self) -> None:
        if (self.home / "rc").exists():
            self.run(self.home / "rc", "stop")
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(LIMIT_S)
        self._holder.stdout.close()


def _hear(reader: int) -> bytes:
    """What comes before the end."""
    text = b""
    while select.select([reader], [], [], LIMIT_S)[0] and (piece := os.read(reader, 100)):
        text += piece
    return text


@contextmanager
def machine_in(folder: Path) -> Iterator[Machine]:
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.end()


def snapshot(folder: Path, without: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
    """Everything below *folder*: kind and mode, owner, size, time of change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        name = str(path.relative_to(folder))
        if not name.startswith(tuple(without)):
            status = os.lstat(path)
            found[name] = status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns
    return found


def real_accounts() -> set[str]:
    """Of the real machine, which no test may change."""
    return {account.pw_name for account in pwd.getpwall()}
