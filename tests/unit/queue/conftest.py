"""The queue's door, opened in the test's own directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.disk import queue
from tests.harness.door import Door


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qm.queue.session.TICK_S", 0.02)
    (tmp_path / "queue").mkdir()
    queue.make()
    opened = Door()
    yield opened
    opened.close()
