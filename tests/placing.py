"""Where the tests run: some of them are other users, who must be able to read the checkout.

A clone may lie below a directory of root's alone (mktemp -d makes such ones); then the tests run in a copy that is not.
"""

import os
import shutil
import subprocess
import sys
import tempfile

NOBODY = 65534  # the uid that stands for any other user
LEFT_OUT = shutil.ignore_patterns(".venv", "var", "__pycache__", ".*_cache", ".hypothesis")


def is_readable(root: str) -> bool:
    """Whether any user can read the checkout; asked of the kernel, as one of them."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os._exit(0 if os.access(os.path.join(root, "bin", "test"), os.R_OK | os.X_OK) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def run_in_copy(root: str, arguments: list[str]) -> int:
    """bin/test's exit code, run in a copy of *root* that all can read and that is removed again."""
    with tempfile.TemporaryDirectory(prefix="qm-test-") as place:
        os.chmod(place, 0o755)  # noqa: S103  # it is for all to read
        copy = os.path.join(place, "qm")
        print("test: other users cannot read this checkout, and some tests are other users; testing a copy", flush=True)
        shutil.copytree(root, copy, symlinks=True, ignore=LEFT_OUT)
        os.chmod(copy, 0o755)  # noqa: S103
        return subprocess.run([sys.executable, os.path.join(copy, "bin", "test"), *arguments], check=False).returncode


def main(root: str, arguments: list[str]) -> None:
    """Return where the tests can run in *root*; else run them in a copy, and exit."""
    if os.geteuid() == 0 and not is_readable(root):
        sys.exit(run_in_copy(root, arguments))
