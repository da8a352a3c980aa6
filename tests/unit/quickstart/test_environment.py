"""The bootstrap of .venv, as far as nothing has to be installed."""

import os
from pathlib import Path

import pytest

from qm.quickstart import environment
from tests.harness.suite import ROOT


def test_requirements_are_those_of_setup_cfg() -> None:
    """What is installed is what setup.cfg lists, without its comments; the test extras come on top."""
    run = environment.requirements(str(ROOT), [])
    test = environment.requirements(str(ROOT), ["test"])
    assert [line.split()[0] for line in run][:2] == ["dnspython", "idna"]
    assert test[: len(run)] == run
    assert any(line.startswith("pytest") for line in test[len(run) :])
    assert not any(line.startswith("#") for line in test)


def test_an_interpreter_that_does_not_run_is_version_0(tmp_path: Path) -> None:
    """A dangling link, as an upgrade of Python leaves it, counts as no interpreter."""
    (tmp_path / "python").symlink_to(tmp_path / "gone")
    assert environment._version(str(tmp_path / "python")) == (0, 0)


def test_an_interpreter_below_a_closed_folder_is_not_for_all(tmp_path: Path) -> None:
    """Other users cannot run what lies below a directory that they cannot search."""
    program = tmp_path / "python"
    program.write_text("")
    program.chmod(0o755)
    tmp_path.chmod(0o700)
    assert not environment.readable_by_all(str(program))
    assert environment.readable_by_all("/usr/bin/env")


@pytest.mark.parametrize("text", ["", "python 3.2\n"])
def test_a_stamp_of_another_environment_does_not_count(text: str, tmp_path: Path) -> None:
    """A .venv that is half made, or of another Python, is not taken for whole."""
    path = tmp_path / "stamp"
    path.write_text(text)
    assert environment._read(str(path)) != environment._stamp((3, 11), ["a >= 1"])
    assert environment._read(os.path.join(tmp_path, "none")) == ""
