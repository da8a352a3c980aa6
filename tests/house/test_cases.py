"""docs/CASES.md leads from each sentence of the reference to its tests, and back from each case."""

import re
from typing import Final

from tests.harness.suite import ROOT

_TEXT: Final = (ROOT / "docs" / "CASES.md").read_text()
_ROWS: Final = re.findall(r"^\| (?!it says|---)(.*?) \| (.*) \|$", _TEXT, re.MULTILINE)
_TEST: Final = r"`((?:unit|black|crash|house)/[\w/]+\.py)(?:::(\w+))?`"


def test_each_sentence_has_its_test() -> None:
    """Each row names a case of a corpus, or a test that is there."""
    assert len(_ROWS) > 80
    for said, tests in _ROWS:
        assert re.fullmatch(rf"(?:(?:\d{{3}}|{_TEST})(?: |$))+", tests), said
    for path, test in re.findall(_TEST, _TEXT):
        text = (ROOT / "tests" / path).read_text()
        assert not test or f"\ndef {test}(" in text, (path, test)


def test_each_case_has_its_sentence() -> None:
    """Each case of the corpus of headers stands in the table, and each number there is one."""
    numbers = {number for _, tests in _ROWS for number in re.findall(r"\b\d{3}\b", re.sub(_TEST, "", tests))}
    assert numbers == {path.stem for path in (ROOT / "tests" / "corpus" / "header").glob("*.in")}
