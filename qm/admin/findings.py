"""What an import finds in another mail system: each thing with its place, and the actions that carry it over."""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from qm.admin.action import Action, read
from qm.disk import atomic
from qm.errors import Temporary
from qm.unix import privs

TEXT_MAX = 64 * 1024 * 1024  # bytes of one file that is carried over


class Finding(NamedTuple):
    where: str  # file, or file:line
    what: str
    carried: bool
    actions: tuple[Action, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.what if self.carried else f'NOT CARRIED OVER: {self.what}'}"


def text_of(path: str) -> str:
    """A text of the source's; raises Temporary, also for one that is no UTF-8."""
    try:
        with open(path, "rb") as file:
            data = file.read(TEXT_MAX + 1)
    except OSError as error:
        raise Temporary("cannot read the other system", detail=f"{path}: {error.strerror}") from error
    if len(data) > TEXT_MAX:
        raise Temporary("cannot read the other system", detail=f"{path}: larger than {TEXT_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Temporary("cannot read the other system", detail=f"{path}:{line}: not UTF-8") from error


class AddLines(NamedTuple):
    """Put lines behind those that a file has, unless they are there."""

    path: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"add to {self.path}: {' '.join(self._missing())}"

    def _missing(self) -> list[str]:
        known = {line.rstrip().lower() for line in (read(self.path) or "").split("\n")}
        return [line for line in dict.fromkeys(self.lines) if line.lower() not in known]

    def is_done(self) -> bool:
        return not self._missing()

    def do(self) -> None:
        before = read(self.path) or ""
        if before and not before.endswith("\n"):
            before += "\n"
        text = before + "".join(f"{line}\n" for line in self._missing())
        atomic.replace(self.path, lambda file: file.write(text.encode()), mode=0o644)
        if privs.is_root():
            os.chown(self.path, 0, 0, follow_symlinks=False)


class Compile(NamedTuple):
    """Make a file from others by *make*, where it is missing or older than they."""

    path: str
    sources: tuple[str, ...]
    make: Callable[[], None]

    def __str__(self) -> str:
        return f"compile {self.path}"

    def is_done(self) -> bool:
        try:
            made_ns = os.stat(self.path).st_mtime_ns
            return all(os.stat(source).st_mtime_ns <= made_ns for source in self.sources)
        except FileNotFoundError:
            return False

    def do(self) -> None:
        self.make()


def kept(path: str, text: str) -> str:
    """What is said where *path* exists and says something else; empty where it does not."""
    there = read(path)
    if there is None or there.strip().lower() == text.strip().lower():
        return ""
    first = there.strip().split("\n", 1)[0]
    return f"{path} is there and says {first[:60]!r}; it stays"


def failed(findings: Iterable[Finding]) -> int:
    return sum(not finding.carried for finding in findings)
