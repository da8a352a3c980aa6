"""docs/RFCS.md: each RFC that the code names stands there, with the section."""

import re
from collections import defaultdict
from typing import Final

import pytest

from tests.harness.suite import ROOT

ANSWERS: Final = {"yes", "partly", "no", "on purpose not"}
_MARK: Final = re.compile(r"\bRFC (\d{3,5})(?: section)?(?: (\d+(?:\.\d+)*))?((?:,? (?:and )?\d+(?:\.\d+)+)*)")
Rows = dict[str, set[str]]


def _rows() -> list[list[str]]:
    lines = [line for line in (ROOT / "docs/RFCS.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "RFC" and not row[0].startswith("---")]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """The sections of each RFC; "all" is one."""
    found: Rows = defaultdict(set)
    numbers: list[str] = []
    for first, sections, *_ in _rows():
        numbers = re.findall(r"\d{3,5}", first) or numbers
        for number in numbers:
            found[number].update(sections.split(", "))
    return found


def _marks(folder: str = "qm") -> dict[tuple[str, str], set[str]]:
    """(RFC, section or nothing) to the files that name it."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in (ROOT / folder).rglob("*.py"):
        for number, section, more in _MARK.findall(path.read_text()):
            for one in [section, *re.findall(r"\d+(?:\.\d+)+", more)]:
                found[number, one].add(str(path.relative_to(ROOT)))
    return found


def test_the_table_is_well_formed() -> None:
    """Each row has an RFC or continues one, sections, one of four answers, and, unless that is yes, a reason."""
    for row in _rows():
        assert len(row) == 4, row
        assert re.fullmatch(r"all|[\d., ]+", row[1]), row
        assert row[2] in ANSWERS, row
        assert row[3] or row[2] == "yes", row


def test_each_rfc_of_the_code_is_there(rows: Rows) -> None:
    """An RFC that the code names has a row."""
    missing = {number: files for (number, _), files in _marks().items() if number not in rows}
    assert missing == {}


def test_each_section_of_the_code_is_there(rows: Rows) -> None:
    """A section that the code names is in its RFC's rows, itself or by one above it."""
    missing = {}
    for (number, section), files in _marks().items():
        above = {section[: match.start()] for match in re.finditer(r"\.|\Z", section)}
        if section and not above & rows[number] and "all" not in rows[number]:
            missing[number, section] = files
    assert missing == {}


def test_what_is_done_is_named(rows: Rows) -> None:
    """What the table says is done can be found in the code or its tests."""
    named = {number for number, _ in [*_marks(), *_marks("tests")]}
    silent = {"1734", "4954", "5034", "5890"}  # what is not built, and a list of words
    assert set(rows) - named - silent == set()
