"""A machine as Debian's installer leaves it: a root directory, processes and a network (loopback only) of its own.

The system is made once, by debootstrap from the archive that apt of the real machine uses, and kept in the user's
cache; what a test's machine writes lies in a layer on top.  Python packages come from a folder that the real machine's
pip has filled, as its configuration says.  Its ports, processes and users are nobody else's.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qm.quickstart.environment import requirements
from tests.harness.suite import ROOT
from tests.harness.waiting import LIMIT_S
from tests.placing import LEFT_OUT

PACKAGES: Final = ("python3", "python3-venv", "ca-certificates", "passwd")
CHECKOUT: Final = "/root/qm"  # where an administrator may put it; nobody else can read that
_MAKE_S: Final = 600.0
_TYPE_S: Final = 300.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT: Final = """
set -e
mount -t overlay -o "lowerdir=$1,upperdir=$3/upper,workdir=$3/work" fresh "$3/root"
cd "$3/root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mkdir run/lock
mount -t tmpfs shm dev/shm
mkdir -p srv/packages mnt
mount --bind "$2" srv/packages
mount --bind "$3/shared" mnt
chroot . python3 -c '
import fcntl, socket, struct
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))'
shift 3
exec chroot . sh -c 'echo up; exec "$@"' sh "$@"
"""
_IDLE: Final = ("env", "--ignore-signal=CHLD", "sleep", "infinity")  # has no zombies
_PIP: Final = "[global]\nno-index = true\nfind-links = /srv/packages\n"
Done = subprocess.CompletedProcess[str]


def _cached(kind: str, key: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A folder that *make* has filled, now or in an earlier run; other processes that want it wait."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qm-test"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    with (folder / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as new:
                make(Path(new) / kind)
                (Path(new) / kind).rename(path)
    return path


def _run(argv: Sequence[str | Path]) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_MAKE_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(f"{argv[0]}: {done.stdout[-2000:]}", pytrace=False)
    return done.stdout


def _system() -> Path:
    """The files of the real machine's release, freshly installed."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {release}"]

    def make(path: Path) -> None:
        archive = _run(sources).split()[0]
        words = ["--variant=minbase", f"--include={','.join(PACKAGES)}", release, str(path), archive]
        _run(["debootstrap", *words])
        shutil.rmtree(path / "var/cache/apt")

    return _cached("system", (release, *PACKAGES), make)


def _packages() -> Path:
    """What pip finds where this machine looks for packages: ours, and what it takes to build those without wheels."""
    wanted = [*requirements(str(ROOT), []), "setuptools", "wheel"]

    def make(path: Path) -> None:
        _run([sys.executable, "-m", "pip", "download", "--no-input", "--quiet", "--dest", str(path), *wanted])

    return _cached("packages", (platform.python_version(), *wanted), make)


class FreshMachine:
    """Off, until `boot`."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"  # there it is /mnt
        self._layer = folder
        self._system, self._packages = _system(), _packages()
        for name in ("upper", "work", "root", "shared"):
            (folder / name).mkdir()
        upper = folder / "upper"
        (upper / "etc").mkdir()
        (upper / "etc/pip.conf").write_text(_PIP)
        (upper / "root").mkdir(0o700)
        shutil.copytree(ROOT, upper / CHECKOUT[1:], symlinks=True, ignore=_left_out)
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0

    def boot(self, *argv: str, env: dict[str, str] | None = None) -> None:
        """Switch it on; *argv* is its first process, by default one that does nothing."""
        unshare = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        with (self._layer / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*unshare, "sh", "-c", _BOOT, "boot", self._system, self._packages, self._layer, *(argv or _IDLE)],
                env={"PATH": _PATH, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n", (self._layer / "log").read_text()
        pid = self._process.pid
        self.init = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def lose_power(self) -> None:
        """End all its processes at once; the kernel has ended the last when this returns."""
        if self._process is not None:
            os.kill(self.init, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """For the end of its first process, and thus of all: that one's exit code."""
        assert self._process is not None and self._process.stdout is not None
        code = self._process.wait(2 * LIMIT_S)
        self._process.stdout.close()
        self._process = None
        return code

    def run(self, line: str, user: str = "root", input: str = "") -> Done:
        """A line typed by *user* after login: root's in the checkout, another's in his home."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--"]
        words = ["su", "-", user, "-c", line]
        if user == "root":
            words[-1] = f"cd {CHECKOUT}; {line}"
        return subprocess.run(
            [*enter, "env", "-i", f"PATH={_PATH}", *words], input=input, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=_TYPE_S, check=False,
        )  # fmt: skip

    def type(self, line: str, user: str = "root", input: str = "") -> str:
        """What a line that must succeed says."""
        done = self.run(line, user, input)
        assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def visit(self, *argv: str) -> Done:
        """A program of the real machine's, on this one's network: other people's mail programs."""
        return subprocess.run(
            ["nsenter", f"--target={self.init}", "--net", "--", *argv], text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """What runs there."""
        paths = self.path("/proc").glob("[0-9]*/cmdline")
        return sorted(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip() for path in paths)

    def written(self, folder: str) -> set[str]:
        """The names of files below *folder*, not of directories, that have been written since the system was made."""
        upper = self._layer / "upper" / folder.lstrip("/")
        return {str(path.relative_to(upper)) for path in upper.rglob("*") if path.is_file() or path.is_symlink()}

    def path(self, path: str) -> Path:
        """A path there, for looking at it from here."""
        return Path(f"/proc/{self.init}/root{path}")


def _left_out(folder: str, names: list[str]) -> set[str]:
    return {".git", "bench"} & set(names) | LEFT_OUT(folder, names)


@contextmanager
def fresh_machine(folder: Path) -> Iterator[FreshMachine]:
    """A machine whose files are in *folder*; switched on."""
    machine = FreshMachine(folder)
    machine.boot()
    try:
        yield machine
    finally:
        machine.lose_power()
