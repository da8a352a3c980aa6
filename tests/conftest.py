"""Marks and fixtures of all tests.

needs_root and needs(program) skip where something is missing; with --all, as bin/test --all and CI have it, that is a
failure.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.suite import Suite

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/lib/dovecot"])
_SUITES = pytest.StashKey[list[Suite]]()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A name for bytes that are no short text: made of them it might differ between pytest's workers."""
    return argname if isinstance(val, bytes) and not (len(val) <= 40 and val.isascii() and val.isalnum()) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--security", action="store_true", help="what is seen goes into docs/SECURITY.md")
    parser.addoption("--all", action="store_true", help="what would be skipped for a missing program fails")


def _missing(item: pytest.Item) -> list[str]:
    programs = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in programs if not shutil.which(name, path=_PATH)]
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        missing.append("root")
    return missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = _missing(item)
    if missing and item.config.getoption("--all"):
        pytest.fail(f"needs {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    reasons = [str(where[2]).partition("needs ")[2] for where in skipped if isinstance(where, tuple)]
    names = {name for reason in reasons if reason for name in reason.split(", ")}
    if names:
        terminalreporter.section("tests were skipped; missing here")
        terminalreporter.line(", ".join(sorted(names)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --all no test may be skipped, for whatever reason."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--all") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for suite in item.stash.get(_SUITES, []):
            report.sections.append((f"log of {suite.home}", suite.log()))
    return report


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that everybody can reach; pytest's own are only its owner's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def make_suite(request: pytest.FixtureRequest, tmp_path: Path, open_folder: Path) -> Iterator[Callable[..., Suite]]:
    """Makes suites that are not started yet, also in *open_folder*, which outlives them.

    At the end each must stop in order, and have raised no alarm.
    """
    suites = request.node.stash.setdefault(_SUITES, [])

    def make(folder: Path = tmp_path) -> Suite:
        suite = Suite(folder / f"home{len(suites)}")
        suite.allowed_alerts += [pattern for mark in request.node.iter_markers("alerts") for pattern in mark.args]
        suites.append(suite)
        return suite

    yield make
    for suite in suites:
        suite.stop()
    for suite in suites:
        assert not suite.alerts(), "alerts in the log"


@pytest.fixture
def suite(make_suite: Callable[[], Suite]) -> Suite:
    """A private mail system that runs."""
    return make_suite().start()
