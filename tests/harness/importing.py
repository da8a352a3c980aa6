"""For tests of qm import: the command, and a qmail to be taken over."""

import subprocess
from pathlib import Path

from tests.harness.suite import BIN, ROOT, Suite


def qm(suite: Suite, *words: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command qm, by the interpreter of the tests, or *under* another program."""
    return subprocess.run(
        [*under, ROOT / ".venv/bin/python", "-bb", "-IS", BIN / "qm", *words, "--home", suite.home],
        env=suite.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class Qmail:
    """A tree as qmail.md section 4 has it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("control", "users", "alias", "queue/lock", "queue/todo", "queue/intd"):
            (home / name).mkdir(parents=True)
        self.number = 1000

    def message(self, text: bytes, **files: bytes) -> int:
        """A message with these of its files: info, local, remote, todo."""
        self.number += 1
        split = str(self.number % 23)
        for name, content in {"mess": text, **files}.items():
            folder = self.home / "queue" / name / ("" if name == "todo" else split)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(self.number)).write_bytes(content)
        return self.number

    def forget(self, number: int) -> None:
        """Take a message away."""
        for path in self.home.glob(f"queue/*/*/{number}"):
            path.unlink()
