"""qbiff: where it writes, and what (qmail.md section 17)."""

import os
import pty
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm import qbiff


def _record(user: bytes, line: bytes, kind: int = 7) -> bytes:
    record = struct.pack("<h2xi32s4s32s", kind, 4711, line, b"1", user)
    return record + bytes(qbiff._RECORD_SIZE - len(record))


def test_terminals() -> None:
    """Only sessions of the user count, and only names below /dev."""
    utmp = b"".join(
        [
            _record(b"joe", b"pts/3"),
            _record(b"joe", b"tty1"),
            _record(b"sue", b"pts/4"),
            _record(b"joe", b"pts/5", kind=8),
            _record(b"joe", b"../etc/passwd"),
            _record(b"joe", b"/etc/passwd"),
            _record(b"joe", b""),
            _record(b"joe", b"x")[:-1],
        ]
    )
    assert qbiff.terminals(utmp, b"joe") == [b"pts/3", b"tty1"]


@given(st.binary(max_size=2000), st.binary(max_size=40))
def test_any_file_is_read(utmp: bytes, user: bytes) -> None:
    """A file of garbage names at most plain terminals."""
    assert all(b".." not in line and line[:1] != b"/" for line in qbiff.terminals(utmp, user))


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"Subject: hi\n there\n\nbody\nmore\n", b"hi there / body more"),
        (b"\nbody", b"body"),
        (b"Subject: x\x1b[2J\n\n\xff", b"x_[2J / _"),
        (b"Subject: " + b"x" * 200 + b"\n\nbody", b"x" * 78),
        (b"", b""),
    ],
)
def test_excerpt(message: bytes, want: bytes) -> None:
    """Subject and body in at most 78 printable characters."""
    assert qbiff.excerpt(iter([message])) == want
    assert qbiff.excerpt(message[i : i + 1] for i in range(len(message))) == want


def test_notice() -> None:
    """CR LF BEL, who wrote to whom, the excerpt; no escape of a stranger's."""
    assert qbiff.notice(b"joe", b"a\x1b@x\n", b"hi") == b"\r\n\a*** TO <joe> FROM <a_@x_>\r\nhi\r\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, bytes]]:
    """Its other end, and its path."""
    master, slave = pty.openpty()
    yield master, os.fsencode(os.ttyname(slave))
    os.close(master)
    os.close(slave)


def test_show(terminal: tuple[int, bytes]) -> None:
    """A terminal that its owner has opened for messages by the execute bit gets the text; another gets nothing."""
    master, path = terminal
    os.set_blocking(master, False)
    os.chmod(path, 0o600)
    qbiff.show(b"closed", path)
    with pytest.raises(BlockingIOError):
        os.read(master, 100)
    os.chmod(path, 0o700)
    qbiff.show(b"open", path)
    os.set_blocking(master, True)
    assert os.read(master, 100) == b"open"


def test_what_is_no_terminal(tmp_path: object) -> None:
    """Files, and what is not there, are left alone."""
    path = os.fsencode(f"{tmp_path}/file")
    with open(path, "wb"):
        pass
    os.chmod(path, 0o700)
    qbiff.show(b"x", path)
    qbiff.show(b"x", path + b"-not-there")
    assert os.path.getsize(path) == 0
