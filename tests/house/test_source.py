"""The rules of the house that a reader of the source can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.suite import ROOT

FUNCTION_MAX = 60  # lines
MODULE_MAX = 300
OURS = sorted((ROOT / "qm").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
NEVER_IMPORTED = {"pickle", "marshal", "shelve", "imp"}
MAY_WAIT = ROOT / "tests" / "harness" / "waiting.py"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=OURS, ids=_name)
def module(request: pytest.FixtureRequest) -> tuple[Path, ast.Module]:
    path: Path = request.param
    return path, ast.parse(path.read_bytes())


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_a_module_says_what_it_is(module: tuple[Path, ast.Module]) -> None:
    """Each module begins with a docstring."""
    assert ast.get_docstring(module[1])


def test_sizes(module: tuple[Path, ast.Module]) -> None:
    """No function over 60 lines, no module over 300."""
    path, tree = module
    long = [f.name for f in _functions(tree) if (f.end_lineno or 0) - f.lineno >= FUNCTION_MAX]
    assert not long
    assert len(path.read_text().splitlines()) <= MODULE_MAX


def test_nothing_forbidden(module: tuple[Path, ast.Module]) -> None:
    """No eval, no pickle, no shell, no bare except."""
    for node in ast.walk(module[1]):
        if isinstance(node, ast.Call):
            name = _called(node)
            assert name not in NEVER_CALLED, name
            assert name not in {"os.system", "os.popen", "subprocess.getoutput"}, name
            assert not any(keyword.arg == "shell" for keyword in node.keywords), name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.Import):
            assert not NEVER_IMPORTED & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in NEVER_IMPORTED


def test_no_test_sleeps() -> None:
    """Only wait_for may sleep."""
    sleepers = [_name(path) for path in TESTS if path != MAY_WAIT and re.search(r"\bsleep\(", path.read_text())]
    assert [name for name in sleepers if name != _name(Path(__file__))] == []


def test_a_test_says_what_must_hold() -> None:
    """Each test has a docstring: the specification in a sentence."""
    silent = [
        f"{_name(path)}: {function.name}"
        for path in TESTS
        for function in _functions(ast.parse(path.read_bytes()))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []


def test_most_functions_are_short() -> None:
    """90 of 100 functions have at most 20 lines."""
    sizes = [(f.end_lineno or 0) - f.lineno + 1 for path in OURS for f in _functions(ast.parse(path.read_bytes()))]
    assert sum(size <= 20 for size in sizes) >= 0.9 * len(sizes)
