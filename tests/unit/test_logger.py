"""qm-log: lines, labels, rotation, and a disk that is full."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.logger import Directory, Lines
from qm.unix import log
from qm.wire import logline
from qm.wire.logline import label

LABEL = re.compile(rb"@[0-9a-f]{24}")


def test_a_label_is_tai64n() -> None:
    """A label counts seconds of TAI, as multilog's and tai64nlocal's: 1970 is 2^62 + 10."""
    assert label(0) == b"@400000000000000a00000000"
    assert label(1_700_000_000_123_456_789) == b"@400000006553f10a075bcd15"


@given(st.lists(st.binary(max_size=50)), st.binary(max_size=50))
def test_pieces_do_not_matter(pieces: list[bytes], rest: bytes) -> None:
    """However the input is cut, the same lines come out."""
    whole, cut = Lines(), Lines()
    text = b"".join(pieces) + b"\n" + rest
    lines = [line for piece in [*pieces, b"\n", rest] for line in cut.feed(piece)]
    assert whole.feed(text) == lines
    assert whole.last() == cut.last()


@given(st.binary(max_size=200))
def test_no_line_moves_the_cursor(text: bytes) -> None:
    """Nothing but printable ASCII and the tab gets into a log: no control, no escape, no change of direction."""
    lines = Lines()
    assert not re.search(rb"[^\t -~]", b"".join([*lines.feed(text), *lines.last()]))


def test_an_endless_line_is_cut() -> None:
    """A line without end takes no more memory than LINE_MAX and one read."""
    lines = Lines()
    for _ in range(10):
        assert all(len(line) <= log.LINE_MAX for line in lines.feed(b"x" * 5000))
    assert sum(map(len, lines.last())) < log.LINE_MAX


def test_a_full_file_is_put_away(tmp_path: Path) -> None:
    """At its size current becomes @TIME.s, with the x bit that says complete; the oldest of too many go."""
    directory = Directory(os.fsencode(tmp_path))
    directory.size_max, directory.files_max = 100, 2
    for number in range(10):
        directory.write([b"x" * 80], number)
    old = sorted(tmp_path.glob("@*"))
    assert [path.name for path in old] == [f"{label(number).decode()}.s" for number in (8, 9)]
    assert all(path.stat().st_mode & 0o777 == 0o744 for path in old)
    assert old[0].read_bytes() == label(8) + b" " + b"x" * 80 + b"\n"


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    """While the directory is away lines are dropped; when it is back, the first line says how many and why."""
    folder = tmp_path / "log"
    directory = Directory(os.fsencode(folder))
    directory.write([b"a", b"b"], 1)
    directory.write([b"c"], 2)
    assert directory.lost == 3
    folder.mkdir()
    directory.write([b"d"], 3)
    assert (folder / "current").read_bytes().split(b"\n")[:2] == [
        label(3) + b" qm-log: alert: 3 lines lost: No such file or directory",
        label(3) + b" d",
    ]


def test_a_directory_that_was_replaced_is_found(tmp_path: Path) -> None:
    """After SIGHUP, lines go to the directory that has the name now."""
    folder = tmp_path / "log"
    folder.mkdir()
    directory = Directory(os.fsencode(folder))
    directory.write([b"a"], 1)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    directory.reopen()
    directory.write([b"b"], 2)
    assert (folder / "current").read_bytes() == label(2) + b" b\n"


def test_a_file_that_cannot_be_put_away_grows(tmp_path: Path) -> None:
    """When current cannot get its name, no line is lost or counted."""
    directory = Directory(os.fsencode(tmp_path))
    directory.size_max = 1
    for number in range(3):
        (tmp_path / f"{label(number).decode()}.s").mkdir()
        (tmp_path / f"{label(number).decode()}.s" / "x").touch()
        directory.write([b"line"], number)
    assert (tmp_path / "current").read_bytes().count(b" line\n") == 3
    assert directory.lost == 0


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the disk cuts short is taken back, and counted."""
    directory = Directory(os.fsencode(tmp_path))
    directory.write([b"first"], 1)
    before = (tmp_path / "current").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", _short_write)
        directory.write([b"second"], 2)
    assert (tmp_path / "current").read_bytes() == before
    directory.write([b"third"], 3)
    lines = (tmp_path / "current").read_bytes().splitlines()
    assert [line.partition(b" ")[2] for line in lines] == [
        b"first",
        b"qm-log: alert: 1 lines lost: " + os.strerror(errno.ENOSPC).encode(),
        b"third",
    ]


def _short_write(fd: int, data: bytes) -> int:
    """As write(2) on a disk with room for half."""
    return os.writev(fd, [data[: len(data) // 2]])


def test_a_file_has_one_format(tmp_path: Path) -> None:
    """When the format changes, what was written in the other one is put away first, also that of an earlier life."""
    directory = Directory(os.fsencode(tmp_path))
    directory.write([b"new msg 1"], 1)
    directory.format = logline.in_json
    directory.reopen()
    directory.write([b"new msg 2"], 2)
    assert (tmp_path / f"{label(2).decode()}.s").read_bytes() == label(1) + b" new msg 1\n"
    assert json.loads((tmp_path / "current").read_bytes())["fields"] == {"msg": "2"}
    later = Directory(os.fsencode(tmp_path))
    later.write([b"new msg 3"], 3)
    assert (tmp_path / "current").read_bytes() == label(3) + b" new msg 3\n"
