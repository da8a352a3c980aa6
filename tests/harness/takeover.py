"""Code of a test's own, run by a process of the running suite, with all that this process is, may and holds.

gdb calls the interpreter of that process, as root may.  So there is nothing to believe: neither a back door in qm nor a
helper that drops privileges "as the worker does".  The code does its work in a child, which the kernel gives the same
identity, limits and descriptors; the process itself goes on with its own.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.harness.suite import wait_for

CODE: Final = Path(__file__).resolve().parent.parent / "fakes" / "hostile.py"
GDB_S: Final = 60
RESULT_S: Final = 120.0


def _call(pid: int, python: str) -> None:
    """Have process *pid* run one line without double quotes."""
    commands = [
        "set $lock = (int)PyGILState_Ensure()",
        f'call (int)PyRun_SimpleString("{python}")',
        "call (void)PyGILState_Release($lock)",
        "detach",
    ]
    words = [word for command in commands for word in ("-ex", command)]
    quiet = ["-iex", "set debuginfod enabled off", "-iex", "set auto-load no"]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *quiet, "-p", str(pid), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=GDB_S, check=False,
    )  # fmt: skip
    assert b"\n$1 = 0\n" in done.stdout, done.stdout.decode(errors="replace")


class TakenOver:
    """What a process finds that it can do; *folder* is one that every user can reach."""

    def __init__(self, folder: Path, name: str, plan: Path) -> None:
        self._plan = plan
        self.result = folder / name
        self.result.touch()
        self.result.chmod(0o666)

    def process(self, pid: int, act: str = "run") -> None:
        """Have *pid* do *act* of the code: run or crowd."""
        begin = f"n['begin']('{act}','{self._plan}','{self.result}')"
        _call(pid, f"n={{'__name__':'hostile'}};exec(open('{CODE}').read(),n);{begin}")

    @property
    def command(self) -> str:
        """For who is not one of our processes, but runs a line of a shell."""
        return f"/usr/bin/python3 -ISbb {CODE} {self._plan} {self.result}"

    def found(self) -> dict[str, Any]:
        wait_for(lambda: os.stat(self.result).st_size, f"what {self.result.name} finds", RESULT_S)
        found: dict[str, Any] = wait_for(self._read, "all of it")
        return found

    def _read(self) -> Any:
        try:
            return json.loads(self.result.read_text())
        except json.JSONDecodeError:
            return None
