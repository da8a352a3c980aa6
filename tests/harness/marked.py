"""Parts of docs/SECURITY.md that are made of what was seen, not written: between two comment lines."""

import re
from collections.abc import Sequence
from typing import Final

import pytest

from tests.harness.suite import ROOT

PAGE: Final = ROOT / "docs" / "SECURITY.md"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name}: seen by bin/test --security -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def compare(name: str, text: str, config: pytest.Config) -> None:
    """The part *name* must be *text*; with --security it becomes that."""
    page, text = PAGE.read_text(), f"\n{text}\n"
    found = _pattern(name).search(page)
    assert found is not None, f"docs/SECURITY.md has no part {name}"
    if config.getoption("--security"):
        PAGE.write_text(page[: found.start()] + text + page[found.end() :])
        return
    assert text.splitlines() == found[0].splitlines(), "if this is right: bin/test --security, and read the difference"
