"""Control files and environment: table, docstrings, code and shipped files say the same."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from qm.disk.control import TABLE, Controls
from qm.programs import PROGRAMS
from tests.harness.suite import ROOT

ASKERS = {"line", "lines", "number", "table", "present"}
SHIPPED = sorted(path.name for path in (ROOT / "control").iterdir())


def _files(module: str) -> list[Path]:
    """The program's own files: its package, or its one module."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return sorted(path.parent.glob("*.py")) if path.parent.name != "qm" else [path]


def _asked(path: Path) -> Iterator[str]:
    """Names that the code of *path* asks a Controls for, as literals."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKERS:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and argument.value in TABLE:
                    yield str(argument.value)


def _documented(module: str) -> set[str]:
    """What "Reads:" names, as control/x or control/{x,y}."""
    text = import_module(module).__doc__ or ""
    found = re.findall(r"control/(?:\{([^}]*)\}|([a-z0-9]+))", text, re.DOTALL)
    return {name.strip() for group, single in found for name in (group or single).split(",")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_documented_control_files_exist(program: str) -> None:
    """A control file that a program's docstring names is in the table."""
    assert _documented(PROGRAMS[program]) <= set(TABLE)


@pytest.mark.parametrize("program", PROGRAMS)
def test_control_files_are_documented(program: str) -> None:
    """A control file that a program asks for is in its docstring."""
    files = _files(PROGRAMS[program])
    asked = {name for path in files for name in _asked(path)}
    of_one_package = [module for module in PROGRAMS.values() if _files(module) == files]
    assert asked <= {name for module in of_one_package for name in _documented(module)} | {"me"}


def _environment(path: Path) -> Iterator[str]:
    """Names of the environment that the code of *path* looks up, as literals."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            where, names = node.func.value, node.args[:1]
        elif isinstance(node, ast.Subscript):
            where, names = node.value, [node.slice]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
            where, names = node.comparators[0], [node.left]
        else:
            continue
        if ast.unparse(where).endswith(("env", "environ")):
            values = [name.value for name in names if isinstance(name, ast.Constant)]
            yield from (value.decode("ascii") for value in values if isinstance(value, bytes))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_environment_is_documented(program: str) -> None:
    """What a program looks up in its environment is in its docstring's "Env:"."""
    files = _files(PROGRAMS[program])
    asked = {name for path in files for name in _environment(path)}
    of_one_package = [module for module in PROGRAMS.values() if _files(module) == files]
    documented = "\n".join(import_module(module).__doc__ or "" for module in of_one_package)
    assert {name for name in asked if not re.search(rf"\b{name}\b", documented)} == set()


def test_each_control_file_is_read() -> None:
    """The table has no control file that nothing reads."""
    files = [path for path in (ROOT / "qm").rglob("*.py") if path.name not in ("control.py", "showctl.py")]
    text = "\n".join(path.read_text() for path in files)
    unread = [name for name in TABLE if not re.search(rf"[\"/{{,]{name}\b", text)]
    assert unread == []


def test_readers_are_programs() -> None:
    """Who reads a control file is one of our programs."""
    known = {name.removeprefix("qm-") for name in PROGRAMS} | {"all"}
    assert {reader for control in TABLE.values() for reader in control.readers.split(", ")} <= known


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_control_file_is_its_default(name: str, tmp_path: Path) -> None:
    """A file of control/ says what holds without it, and explains itself."""
    (tmp_path / "me").write_text("host.example\n")
    without = Controls([name], str(tmp_path))
    (tmp_path / name).write_bytes((ROOT / "control" / name).read_bytes())
    shipped = Controls([name], str(tmp_path))
    ask = {"a number": "number", "a list, one entry a line": "lines", "key:value lines": "table", "one line": "line"}
    kind = ask[TABLE[name].kind.value]
    assert getattr(shipped, kind)(name) == getattr(without, kind)(name)
    assert len((ROOT / "control" / name).read_text().split()) > 3
