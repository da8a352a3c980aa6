"""maildirmake, the command (qmail.md section 18)."""

import stat
import subprocess
from pathlib import Path

import pytest

from tests.harness.suite import BIN


def _run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/usr/bin/python3", "-bb", "-IS", BIN / "maildirmake", *words], capture_output=True, timeout=60, check=False
    )


def test_it_makes_a_maildir(tmp_path: Path) -> None:
    """A Maildir and its three directories are for their owner only; nothing is said."""
    done = _run(tmp_path / "Maildir")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    paths = sorted(tmp_path.rglob("*"))
    names = [str(path.relative_to(tmp_path)) for path in paths]
    assert names == ["Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o700}


@pytest.mark.parametrize("words", [[], [""], ["a", "b"]])
def test_usage(words: list[str]) -> None:
    """A wrong command line is a permanent failure."""
    done = _run(*words)
    assert done.returncode == 100
    assert b"usage: maildirmake name" in done.stderr


def test_it_cannot(tmp_path: Path) -> None:
    """What exists already, or has no parent, is a failure that names it and leaves nothing."""
    for path in (tmp_path, tmp_path / "gone" / "Maildir", Path("/proc/Maildir")):
        done = _run(path)
        assert done.returncode == 111
        assert str(path).encode() in done.stderr
    assert list(tmp_path.iterdir()) == []
