"""What is copied into an installed home, and how a change of it is found."""

import os
from pathlib import Path

import pytest

from qm.admin import code
from qm.errors import Permanent
from qm.programs import PROGRAMS
from tests.harness.suite import ROOT


def test_what_is_copied() -> None:
    """Programs, launchers, defaults, manual and the packages that they need, but neither tests nor their tools."""
    paths = code.sources(str(ROOT))
    assert {f"bin/{name}" for name in PROGRAMS} <= set(paths)
    assert {"qm/launch.py", "control/databytes", "alias/.qmail-postmaster", "docs/man/qm.8", "setup.cfg"} <= set(paths)
    packages = {path.split("/")[4] for path in paths if path.startswith(".venv/")}
    assert {"dns", "cdblib", "daemon", "argon2", "click", "rich"} <= {name.partition(".")[0] for name in packages}
    assert not {name for name in packages if name.startswith(("pytest", "mypy", "hypothesis", "pip"))}
    assert not [path for path in paths if path.startswith("tests") or path.endswith(".pyc") or ".." in path]


def test_a_checkout_without_its_packages(tmp_path: Path) -> None:
    """A package that setup.cfg asks for and that is not there is named."""
    (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n    dnspython >= 2\n")
    (tmp_path / code._SITE).mkdir(parents=True)
    with pytest.raises(Permanent, match="dnspython >= 2 is not in"):
        code.sources(str(tmp_path))


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A lib/ with one program."""
    lib = tmp_path / "lib"
    (lib / "qm").mkdir(parents=True)
    for path in (lib, lib / "qm"):
        path.chmod(0o755)
    (lib / "qm/a.py").write_text("a = 1\n")
    (lib / code.MANIFEST).write_text(code._manifest(str(lib), ["qm/a.py"]))
    for name in ("qm/a.py", code.MANIFEST):
        (lib / name).chmod(0o644)
    return lib


def _changes(lib: Path) -> list[tuple[str, str]]:
    return [(os.path.relpath(path, lib), text) for path, text in code.changes(str(lib))]


def test_changes_are_found(lib: Path) -> None:
    """A file that is not the installed one, is missing, or that others may write is named."""
    assert _changes(lib) == []
    (lib / "qm/a.py").chmod(0o646)
    assert _changes(lib) == [("qm/a.py", "mode 0646: others can write it, or it changes who runs it")]
    (lib / "qm/a.py").chmod(0o644)
    (lib / "qm/a.py").write_text("a = 2\n")
    assert _changes(lib) == [("qm/a.py", "not the file that was installed")]
    (lib / "qm/a.py").unlink()
    assert _changes(lib) == [("qm/a.py", "no such file or directory")]
    (lib / code.MANIFEST).unlink()
    assert _changes(lib) == [("manifest", "missing")]
