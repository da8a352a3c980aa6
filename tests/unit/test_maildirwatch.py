"""maildirwatch's patience; what it shows is tested on the program (tests/black/test_maildir2mbox.py)."""

import time
from pathlib import Path

import pytest

from qm import maildirwatch
from qm.errors import TEMPORARY


def test_it_looks_again_after_30_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """It clears the screen and shows everything, waits, and does it again, until it cannot."""
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (tmp_path / "new").rmdir()

    monkeypatch.setattr(time, "sleep", wait)
    assert maildirwatch.main([b"maildirwatch"], {b"MAILDIR": bytes(tmp_path)}) == TEMPORARY
    assert waits == [30.0, 30.0]
    assert capfdbinary.readouterr().out.count(b"\x1b[;H\x1b[;J0 new messages in ") == 2
