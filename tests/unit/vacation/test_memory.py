"""Whom vacation has answered lately."""

from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.vacation import memory

WEEK_S = 7 * 86400


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _answered(now_s: int, *senders: bytes) -> list[bool]:
    """What may be answered at *now_s*; it is."""
    given = []
    with memory.held(now_s, WEEK_S) as known:
        for sender in senders:
            given.append(known.may_answer(sender))
            if given[-1]:
                known.answered(sender)
    return given


def test_once_in_an_interval() -> None:
    """A sender is answered again after the interval, whatever the letter case; others are not concerned."""
    assert _answered(1_000_000, b"Joe@x", b"joe@X", b"sue@x") == [True, False, True]
    assert _answered(1_000_000 + WEEK_S - 1, b"joe@x") == [False]
    assert _answered(1_000_000 + WEEK_S, b"joe@x") == [True]


def test_a_clock_that_was_wrong() -> None:
    """An answer from the future does not silence us until then."""
    assert _answered(9_000_000_000, b"joe@x") == [True]
    assert _answered(1_000_000, b"joe@x") == [True]


def test_a_flood() -> None:
    """So many senders in one interval get no answers; the file stays small."""
    Path(memory.PATH).write_bytes(b"".join(b"1000000 %d@x\n" % n for n in range(memory.SENDERS_MAX)))
    assert _answered(1_000_001, b"joe@x") == [False]
    assert _answered(1_000_001 + WEEK_S, b"joe@x") == [True]
    assert len(Path(memory.PATH).read_bytes().splitlines()) == 1


def test_addresses_with_blanks() -> None:
    """An address is kept as it is."""
    assert _answered(1_000_000, b"joe user@x") == [True]
    assert _answered(1_000_001, b"joe user@x", b"joe@x") == [False, True]


def test_trouble() -> None:
    """What cannot be read is said."""
    Path(memory.PATH).mkdir()
    with pytest.raises(Temporary, match=r"vacation\.answered"):
        _answered(1_000_000, b"joe@x")
