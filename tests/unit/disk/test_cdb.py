"""Constant databases (qmail.md 2.6, section 29)."""

import os
import struct
from pathlib import Path

import cdblib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm.disk.cdb import BadCdb, Cdb, write

_items = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=30)), max_size=30)


def _opened(path: Path) -> Cdb:
    cdb = Cdb(str(path))
    cdb.refresh()
    return cdb


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(_items, st.binary(max_size=12))
def test_lookup(tmp_path: Path, items: list[tuple[bytes, bytes]], other: bytes) -> None:
    """The first value of each key is found, and of no other; cdblib reads the same."""
    path = tmp_path / "x"
    write(str(path), items)
    cdb = _opened(path)
    first: dict[bytes, bytes] = {}
    for key, value in items:
        first.setdefault(key, value)
    for key in [*first, other]:
        assert cdb.lookup(key) == first.get(key)
        assert cdblib.Reader(path.read_bytes()).get(key) == first.get(key)
    cdb.close()


def test_the_empty_key(tmp_path: Path) -> None:
    """The empty key hashes to 5381: table 5, first slot 21 modulo the slots."""
    write(str(tmp_path / "x"), [(b"", b"-")])
    data = (tmp_path / "x").read_bytes()
    header = struct.unpack("<512L", data[:2048])
    assert [table for table in range(256) if header[2 * table + 1]] == [5]
    position, slots = header[10:12]
    assert struct.unpack_from("<LL", data, position + 21 % slots * 8) == (5381, 2048)
    assert _opened(tmp_path / "x").lookup(b"") == b"-"


def test_a_missing_file(tmp_path: Path) -> None:
    """No file has no values, and is not a failure; one that comes, changes or goes is noticed."""
    path = tmp_path / "x"
    cdb = Cdb(str(path))
    assert (cdb.refresh(), cdb.present, cdb.lookup(b"a")) == (False, False, None)
    write(str(path), [(b"a", b"1")])
    assert (cdb.refresh(), cdb.present, cdb.lookup(b"a")) == (True, True, b"1")
    assert not cdb.refresh()
    write(str(path), [(b"a", b"2")])
    assert cdb.lookup(b"a") == b"1", "the file that we have open stays as it is"
    assert (cdb.refresh(), cdb.lookup(b"a")) == (True, b"2")
    path.unlink()
    assert (cdb.refresh(), cdb.present, cdb.lookup(b"a")) == (True, False, None)


def test_no_descriptor_is_lost(tmp_path: Path) -> None:
    """Opening again and again, good files and bad ones, leaves no descriptor behind."""
    path = tmp_path / "x"
    cdb = Cdb(str(path))
    before = len(os.listdir("/proc/self/fd"))
    for count in range(20):
        write(str(path), [(b"a", b"%d" % count)])
        cdb.refresh()
        path.write_bytes(b"broken")
        with pytest.raises(BadCdb):
            cdb.refresh()
    cdb.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 2047, b"\xff" * 2048, b"\xff" * 4096])
def test_what_is_no_cdb(tmp_path: Path, content: bytes) -> None:
    """A file without a sound header is a temporary failure that names it, each time it is asked for."""
    (tmp_path / "x").write_bytes(content)
    cdb = Cdb(str(tmp_path / "x"))
    for _ in range(2):
        with pytest.raises(BadCdb, match="x: it is cut off"):
            cdb.refresh()


def test_a_directory_or_a_pipe(tmp_path: Path) -> None:
    """What is no file is a temporary failure, and a pipe does not hold us up."""
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "p")
    for name in ("d", "p"):
        with pytest.raises(BadCdb):
            Cdb(str(tmp_path / name)).refresh()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A directory that cannot be looked into is a failure, not a missing file."""
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(BadCdb, match="Not a directory"):
        Cdb(str(tmp_path / "f" / "cdb")).refresh()


def test_a_full_table_ends(tmp_path: Path) -> None:
    """A table without an empty slot, which would hold up cdblib for ever, is a failure."""
    path = tmp_path / "x"
    write(str(path), [(b"", b"-")])
    data = bytearray(path.read_bytes())
    position, slots = struct.unpack_from("<LL", data, 5 * 8)
    for slot in range(slots):
        struct.pack_into("<LL", data, position + 8 * slot, 1, 1)
    path.write_bytes(data)
    with pytest.raises(BadCdb, match="no empty slot"):
        _opened(path).lookup(b"")


def test_a_file_cut_off_while_it_is_open(tmp_path: Path) -> None:
    """A file that is cut off under us is a failure, not a signal."""
    path = tmp_path / "x"
    write(str(path), [(b"a", b"1")])
    cdb = _opened(path)
    os.truncate(path, 2060)
    with pytest.raises(BadCdb):
        cdb.lookup(b"a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2200), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 2200))
def test_any_damage(tmp_path: Path, damage: list[tuple[int, int]], length: int) -> None:
    """A damaged file gives a value, none, or a temporary failure."""
    path = tmp_path / "x"
    write(str(path), [(b"", b"-"), (b"key", b"value"), (b"another", b"")])
    data = bytearray(path.read_bytes())
    for position, byte in damage:
        data[position % len(data)] = byte
    path.write_bytes(data[:length] if length < 2100 else data)
    cdb = Cdb(str(path))
    try:
        cdb.refresh()
        for key in (b"", b"key", b"another", b"none"):
            cdb.lookup(key)
    except BadCdb as error:
        assert str(path) in error.detail
    finally:
        cdb.close()


def test_writing_needs_no_lock_against_readers(tmp_path: Path) -> None:
    """The file is there whole or not at all, with the mode that was asked for and no temporary file beside it."""
    write(str(tmp_path / "x"), [(b"k", b"v")], mode=0o600)
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_temporary_name_of_the_callers(tmp_path: Path) -> None:
    """tcprules names its own temporary file; one that a crash has left is in nobody's way."""
    (tmp_path / "t").write_bytes(b"left by a crash")
    write(str(tmp_path / "x"), [(b"k", b"v")], temporary=str(tmp_path / "t"))
    assert os.listdir(tmp_path) == ["x"]
