"""queue/state/ID: the history of a message."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.disk import state
from qm.disk.state import Outcome

_TEXT = st.binary(max_size=200)
_OUTCOME = st.builds(
    Outcome,
    st.integers(0, 2**40),
    st.integers(0, 10**6),
    st.sampled_from([b"K", b"Z", b"D", b"B", b"W"]),
    st.integers(0, 2**40),
    _TEXT.filter(lambda t: t != b"-"),
    _TEXT.filter(lambda t: t != b"-"),
    _TEXT.filter(lambda t: t != b"-"),
    _TEXT.filter(lambda t: t != b"-"),
    st.just(False),
)


@pytest.fixture
def directory(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


@given(st.lists(_OUTCOME, max_size=5))
def test_a_line_gives_back_what_it_says(outcomes: list[Outcome]) -> None:
    """Any outcome is read back as it was written."""
    assert list(state.parse(map(state.format_line, outcomes))) == outcomes


def test_relayed_is_kept() -> None:
    """A success whose reports are the next host's stays that."""
    outcome = Outcome(1, 2, b"K", 0, b"ok", relayed=True)
    assert list(state.parse([state.format_line(outcome)])) == [outcome]


@given(st.binary(max_size=300))
def test_garbage_is_passed_over(data: bytes) -> None:
    """A state file of any bytes gives outcomes or nothing, never an exception."""
    for outcome in state.parse(io.BytesIO(data)):
        assert outcome.letter in b"KZDBW"


@given(st.lists(_OUTCOME, min_size=1, max_size=4), st.integers(0, 400))
def test_a_cut_file_gives_its_whole_lines(outcomes: list[Outcome], cut: int) -> None:
    """Whatever a crash has cut off, the lines before it count."""
    data = b"".join(map(state.format_line, outcomes))
    read = list(state.parse(io.BytesIO(data[:cut])))
    assert read == outcomes[: len(read)]


def test_a_line_is_printable() -> None:
    """A line holds printable ASCII and tabs only, so that any pager may show it."""
    line = state.format_line(Outcome(1, 2, b"Z", 3, bytes(range(256)), b"4.0.0", b"a\nb", b"\x1b[31m"))
    assert all(32 <= byte < 127 or byte == 9 for byte in line[:-1])
    assert line.endswith(b"\n") and line.count(b"\n") == 1


def test_append_starts_a_new_line_after_a_crash(tmp_path: Path, directory: int) -> None:
    """What a crash has cut short does not spoil the next line."""
    path = os.fsencode(tmp_path / "s")
    first, second = Outcome(1, 0, b"Z", 5, b"x"), Outcome(2, 0, b"K", 0, b"y")
    state.append(path, directory, [first], durable=True)
    with open(path, "ab") as file:
        file.write(b"17\t0\tK")
    state.append(path, directory, [second], durable=False)
    assert list(state.read(path)) == [first, second]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is taken back and is an error."""
    path = os.fsencode(tmp_path / "s")
    state.append(path, directory, [Outcome(1, 0, b"Z", 5, b"x")], durable=True)
    before = Path(os.fsdecode(path)).read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:4]))
    with pytest.raises(OSError):
        state.append(path, directory, [Outcome(2, 0, b"K", 0, b"y")], durable=True)
    assert Path(os.fsdecode(path)).read_bytes() == before


def test_no_file_is_no_history(tmp_path: Path) -> None:
    """A message of which nothing was ever remembered has no outcomes."""
    assert list(state.read(os.fsencode(tmp_path / "none"))) == []
