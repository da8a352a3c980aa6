"""What changes a machine, as values: a plan is a list of actions, that is printed, carried out, or both.

An action knows whether there is anything left to do, so that the same plan may be carried out any number of times.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from qm.disk import atomic, lock
from qm.disk.regular import open_regular
from qm.errors import Temporary

COMMAND_S: Final = 60.0  # tools that make accounts wait for one another's locks
LOCK: Final = "/run/qm-admin.lock"  # of the machine, since accounts and links of two homes are in the same places


class Action(Protocol):
    def __str__(self) -> str:
        """One line for the plan."""

    def is_done(self) -> bool:
        """Whether nothing is left to do; also before what earlier actions make is there."""

    def do(self) -> None:
        """Raises OSError, QmError."""


class Command(NamedTuple):
    """Run a program of the system's."""

    argv: tuple[str, ...]
    check: Callable[[], bool]

    def __str__(self) -> str:
        return shlex.join(self.argv)

    def is_done(self) -> bool:
        return self.check()

    def do(self) -> None:
        try:
            done = subprocess.run(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=COMMAND_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Temporary(f"cannot run {self.argv[0]}", detail=str(error)) from error
        if done.returncode:
            said = " ".join(done.stdout.decode("utf-8", "replace").split())
            raise Temporary(f"{self.argv[0]} failed", detail=f"{shlex.join(self.argv)}: {said}")


class Write(NamedTuple):
    """Give a file a content; with *keep*, only where there is none."""

    path: str
    text: str
    mode: int = 0o644
    keep: bool = True

    def __str__(self) -> str:
        lines = self.text.splitlines()
        said = f": {lines[0]}" if len(lines) == 1 else ""
        return f"write {self.path}{said}"

    def is_done(self) -> bool:
        if self.keep:
            return os.path.lexists(self.path)
        return read(self.path) == self.text and os.stat(self.path).st_mode & 0o7777 == self.mode

    def do(self) -> None:
        root = (0, 0) if os.geteuid() == 0 else None  # also in a directory of a role's
        atomic.replace(self.path, lambda file: file.write(self.text.encode()), mode=self.mode, owner=root)


class Folder(NamedTuple):
    """Make a directory that is not the home's: those are the table's."""

    path: str
    mode: int

    def __str__(self) -> str:
        return f"make directory {self.path}, mode {self.mode:04o}"

    def is_done(self) -> bool:
        return os.path.isdir(self.path)

    def do(self) -> None:
        os.makedirs(self.path, self.mode, exist_ok=True)


class Link(NamedTuple):
    """Make a symbolic link, in place of an older one of ours; what others have put there stays."""

    path: str
    target: str
    ours: str  # where the targets of our own links begin

    def __str__(self) -> str:
        return f"link {self.path} to {self.target}"

    def is_done(self) -> bool:
        if not os.path.lexists(self.path):
            return False
        return not points_into(self.path, self.ours) or os.readlink(self.path) == self.target

    def do(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
        temporary = f"{self.path}.qm-new"
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(self.target, temporary)
        os.rename(temporary, self.path)


class Remove(NamedTuple):
    """Remove a file, or a directory with *what is below it*."""

    path: str
    below: bool = False

    def __str__(self) -> str:
        return f"remove {self.path}" + (" and all below it" if self.below else "")

    def is_done(self) -> bool:
        return not os.path.lexists(self.path)

    def do(self) -> None:
        if self.below:
            shutil.rmtree(self.path)
        else:
            os.unlink(self.path)


def points_into(path: str, folder: str) -> bool:
    """Whether *path* is a link to something below *folder*."""
    return os.path.islink(path) and os.readlink(path).startswith(folder.rstrip("/") + "/")


def read(path: str) -> str | None:
    """The text of a file, by its name or a link; None if there is none.

    Raises OSError for any other reason, also for what is no file: alias/ is not root's.
    """
    try:
        fd = open_regular(os.path.realpath(path))
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


def be_alone() -> None:
    """Be the only one that changes this machine, until this process ends.  Raises Temporary."""
    try:
        lock.take(LOCK)
    except Temporary as error:
        raise Temporary("another qm command is changing this machine", detail=error.detail) from error


def carry_out(
    plan: Iterable[Action], say: Callable[[str], None], *, dry_run: bool, before: Callable[[], None] = lambda: None
) -> int:
    """Say what is left to do, and do it, *before* each doing that, unless *dry_run*; how many actions that were.

    Raises OSError, QmError at the first that fails; then the plan may be carried out again.
    """
    count = 0
    for action in plan:
        if not action.is_done():
            say(str(action))
            count += 1
            if not dry_run:
                before()
                action.do()
    return count
