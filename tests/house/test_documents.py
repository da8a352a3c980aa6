"""README and its like: what they point to is there."""

import configparser
import re
from pathlib import Path

import pytest

from tests.harness.suite import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(path: Path) -> None:
    """A link to a file of ours leads to one."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path: Path) -> None:
    """A path in code type that begins with a directory of ours names a file, a directory, or several."""
    names = re.findall(r"`((?:qm|docs|tests|bin|bench)/[A-Za-z0-9_./*-]*)`", path.read_text())
    assert [name for name in names if not list(ROOT.glob(name.rstrip("/")))] == []


def test_the_two_commands() -> None:
    """README names the two commands: run it, test it."""
    text = (ROOT / "README.md").read_text()
    assert "bin/quickstart" in text
    assert "bin/test" in text


def test_each_dependency_has_its_reason() -> None:
    """In setup.cfg a comment above each dependency says what it is for."""
    config = configparser.ConfigParser(comment_prefixes=None, allow_no_value=True)
    config.read(ROOT / "setup.cfg")
    for text in (config["options"]["install_requires"], config["options.extras_require"]["test"]):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        assert all(lines[i - 1].startswith("#") for i, line in enumerate(lines) if not line.startswith("#"))


def test_the_changelog_has_its_sections() -> None:
    """CHANGELOG begins with what is not released, by kind: Security, Added, Changed, Fixed."""
    headings = re.findall(r"^### (\w+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(headings) <= {"Security", "Added", "Changed", "Fixed"}
    assert headings
