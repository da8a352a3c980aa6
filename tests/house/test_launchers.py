"""bin/ has a launcher for each program, and nothing that differs from the others without need."""

import os
import subprocess
from pathlib import Path

from qm.programs import PROGRAMS
from tests.harness.suite import BIN

OTHERS = {"bench", "quickstart", "test"}


def test_each_program_has_a_launcher() -> None:
    """bin/ is qm/programs.py, quickstart, test and bench."""
    assert {path.name for path in BIN.iterdir()} - OTHERS == set(PROGRAMS)


def test_launchers_are_alike() -> None:
    """All launchers have the same lines, and everybody may run them."""
    texts = {(BIN / name).read_bytes() for name in PROGRAMS}
    assert len(texts) == 1
    assert all((BIN / name).stat().st_mode & 0o555 == 0o555 for name in PROGRAMS)


def test_a_launcher_may_be_linked(tmp_path: Path) -> None:
    """A link from elsewhere, as /usr/sbin/sendmail, finds its program."""
    link = tmp_path / "qm-rc"
    link.symlink_to(BIN / "qm-rc")
    done = subprocess.run([link], env={"QMHOME": str(tmp_path)}, cwd="/", capture_output=True, check=False)
    assert (done.returncode, done.stdout[:9]) == (2, b"usage: rc")


def test_a_launcher_works_without_standard_descriptors(tmp_path: Path) -> None:
    """Who starts a program with descriptors 0, 1 and 2 closed gets its exit code nevertheless."""
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 3)
        os.execve(BIN / "qm-rc", ["qm-rc", "status"], {"QMHOME": str(tmp_path)})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_name_without_program_is_temporary(tmp_path: Path) -> None:
    """A launcher under a name of no program ends with 111, which no parent takes for a permanent failure."""
    link = tmp_path / "qm-nothing"
    link.symlink_to(BIN / "qm-rc")
    done = subprocess.run([link], cwd="/", capture_output=True, check=False)
    assert done.returncode == 111
    assert done.stderr == b"qm-nothing: fatal: not a program of qm\n"
