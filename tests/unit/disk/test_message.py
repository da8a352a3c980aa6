"""A message on a descriptor that others share."""

import os
from pathlib import Path

import pytest

from qm.disk.message import Message
from qm.errors import Temporary

FIRST, CHUNK = 65536, 262144


@pytest.mark.parametrize("size", [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + CHUNK, FIRST + CHUNK + 1, 2_000_000])
def test_chunks(tmp_path: Path, size: int) -> None:
    """A message of any size comes whole, after what goes before it, in bounded pieces, and again the next time."""
    content = os.urandom(size)
    (tmp_path / "m").write_bytes(content)
    fd = os.open(tmp_path / "m", os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)
    message = Message(fd)
    for before in (b"", b"head\n"):
        pieces = list(message.chunks(before))
        assert b"".join(pieces) == before + content
        assert max(map(len, pieces)) <= CHUNK + len(before)
        assert all(pieces[1:])
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    os.close(fd)


def _memfd(content: bytes) -> int:
    fd = os.memfd_create("m")
    os.write(fd, content)
    return fd


def test_reopen_shares_no_offset() -> None:
    """Two programs may read the message at once, each from its beginning."""
    message = Message(_memfd(b"text"))
    first, second = message.reopen(), message.reopen()
    assert os.read(first, 10) == b"text"
    assert os.read(second, 10) == b"text"
    for fd in (first, second, message.fd):
        os.close(fd)


def test_reopen_of_what_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that may be read but not opened again, as another user's file, is rewound."""
    message = Message(_memfd(b"text"))  # its offset is at the end

    def refuse(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        fd = message.reopen()
    assert os.read(fd, 10) == b"text"
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(message.fd)


def test_a_pipe_is_refused() -> None:
    """A message that cannot be read twice is a temporary failure."""
    reader, writer = os.pipe()
    with pytest.raises(Temporary):
        Message(reader)
    os.close(reader)
    os.close(writer)
