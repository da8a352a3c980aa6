"""Files where somebody else can write: only regular ones are opened, and at once."""

import os
import socket
from pathlib import Path

import pytest

from qm.disk.regular import Irregular, open_regular


def test_a_file_is_opened_and_made(tmp_path: Path) -> None:
    """As open(2) does, also below a directory's descriptor."""
    folder = os.open(tmp_path, os.O_RDONLY)
    fd = open_regular("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder)
    os.write(fd, b"text")
    os.close(fd)
    os.close(folder)
    fd = open_regular(tmp_path / "file")
    assert os.read(fd, 10) == b"text"
    os.close(fd)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT | os.O_APPEND])
def test_anything_else_is_refused_at_once(tmp_path: Path, flags: int) -> None:
    """A FIFO, a link, also one to a file, a socket and a device are refused, and none is followed or waited for."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("fifo", "link", "device", "socket"):
        with pytest.raises(Irregular):
            open_regular(tmp_path / name, flags)
    with pytest.raises(Irregular):
        open_regular("/dev/null", flags)
    assert (tmp_path / "file").read_text() == "text"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
