"""README and its like: what they point to is there."""

import configparser
import re
from pathlib import Path

import pytest

from qm.disk.control import TABLE
from qm.programs import PROGRAMS
from tests.harness.suite import ROOT

DOCS = ROOT / "docs"
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


VECTORS = (
    "split", "VERP", "percenthack", ".qmail search", "bounce paragraph", "retry", "log sanitising",
    "cdb hash of the empty key", "rspawn merge", "smtproutes",
)  # fmt: skip


def _entries() -> list[str]:
    """What QUIRKS.md says, entry by entry: the lists' items, and the rows of the table of vectors."""
    text = (DOCS / "QUIRKS.md").read_text()
    items = re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)
    vectors = text.partition("\n## Where section 29's vectors are held\n")[2]
    rows = re.findall(r"^\| (?!vector)[^-].*", vectors, re.MULTILINE)
    assert set(VECTORS) <= {row.split("|")[1].strip() for row in rows}
    return [*items, *rows]


def test_quirks_have_tests() -> None:
    """Each quirk, and each vector of qmail.md's section 29, names its test, not a file of tests, and that is there."""
    named = re.findall(r"`((?:unit|black|crash|house)/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "QUIRKS.md").read_text())
    assert len(named) > 50
    for entry in _entries():
        # a number in brackets is a file of a corpus, whose test the entry before names
        assert re.search(r"`(?:unit|black|crash|house)/|\(\d{3}(, \d{3})*\)", entry), f"no test is named by: {entry}"
    for path, test in named:
        text = (ROOT / "tests" / path).read_text()
        assert f"\ndef {test}(" in text, (path, test)


def test_sections_of_internals() -> None:
    """A section of INTERNALS.md that the code refers to is there."""
    headings = set(re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", (DOCS / "INTERNALS.md").read_text(), re.MULTILINE))
    for path in (ROOT / "qm").rglob("*.py"):
        for found in re.findall(r"INTERNALS(?:\.md)?(?: section)? (\d[\d., ]*)", path.read_text()):
            sections = set(re.findall(r"\d+(?:\.\d+)*", found))
            assert sections <= headings, (path, sections)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_control_files_in_documents(path: Path) -> None:
    """A control file that a document names in code type is in the table."""
    names = re.findall(r"`control/([a-z0-9]+)`", path.read_text())
    assert set(names) <= set(TABLE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_programs_in_documents(path: Path) -> None:
    """What a document calls qm-something is a program, a package of ours or a page."""
    pages = {page.stem for page in (DOCS / "man").iterdir()}
    names = set(re.findall(r"(?<![\w/.-])qm-[a-z0-9]+\b", path.read_text()))
    assert names - set(PROGRAMS) - pages == set()


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_prose_is_wrapped(path: Path) -> None:
    """Outside of tables and of what is shown as it is, lines have at most 120 columns."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]
    assert long == []


def test_security_knows_every_service() -> None:
    """Each program that qm-start or a services file of ours runs has its row in SECURITY.md."""
    table = (DOCS / "SECURITY.md").read_text().partition("## Processes")[2].partition("\n## ")[0]
    running = {f"qm-{name}" for name in ("supervise", "log", "start", "queued", "userd", "lspawn", "rspawn", "send")}
    running |= {"qm-smtpd", "qm-popup", "qm-pop3d", "qm-local", "qm-remote", "checkpassword", "tcpserver"}
    assert {name for name in running if name not in table} == set()
