"""bin/test: everything that must hold, in parallel, with one line at the end that says whether it does.

The checks (lint, types, import contracts) run beside one another, then pytest runs on all cores.  Arguments that are no
option of ours go to pytest, which then runs alone.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = ROOT / ".venv" / "bin"
PYTHON: Final = str(BIN / "python")
USAGE: Final = """usage: bin/test [--fast | --all | --security | PYTEST-ARGUMENT...]

Without an argument: lint, types, import contracts, then all tests; those that need a program which is not here are
skipped and named.
  --fast   lint, types, contracts, unit and house tests only
  --security   write what processes are, and what they could do, into docs/SECURITY.md (as root)
  --all    a test that would be skipped for a missing program fails
With a path, or other arguments of pytest: these tests only."""
CHECKS: Final = {
    "lint": [str(BIN / "ruff"), "check", "--quiet", "--output-format=concise", "."],
    "types": [str(BIN / "mypy"), "--no-error-summary"],
    "contracts": [str(BIN / "lint-imports"), "--no-logo"],
}
WORKERS_MAX: Final = 4
OBSERVERS: Final = ("tests/black/test_privileges.py", "tests/black/test_hostile.py")  # write docs/SECURITY.md


def _run_checks() -> list[str]:
    """Names of the checks that fail; each says why."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    started = {name: subprocess.Popen(command, cwd=ROOT, **pipes) for name, command in CHECKS.items()}
    failed = []
    for name, process in started.items():
        output, _ = process.communicate()
        print(f"{name}: {'FAILED' if process.returncode else 'passed'}", flush=True)
        if process.returncode:
            failed.append(name)
            print(output.decode("utf-8", "replace"), flush=True)
    return failed


def _pytest(arguments: Sequence[str], workers: int) -> int:
    """pytest's exit code; text and bytes compared anywhere is an error (-bb), here and in the workers."""
    spread = [f"--tx={workers}*popen//python={PYTHON} -bb", "--dist=worksteal"] if workers > 1 else []
    command = [PYTHON, "-bb", "-m", "pytest", "-q", *spread, *arguments]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


def main(argv: Sequence[str]) -> int:
    began_s = time.monotonic()
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    failed = []
    if list(argv) == ["--security"]:
        argv = [*OBSERVERS, *argv]
    if argv and list(argv) not in (["--fast"], ["--all"]):
        code = _pytest(argv, 1)
    else:
        failed = _run_checks()
        tests = ["tests/unit", "tests/house"] if argv == ["--fast"] else ["tests", *argv]
        code = _pytest(["--durations=5", *tests], min(WORKERS_MAX, max(2, os.cpu_count() or 2)))
    failed += ["tests"] if code else []
    result = f"FAILED: {', '.join(failed)}" if failed else "all passed"
    print(f"bin/test: {result} ({time.monotonic() - began_s:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
