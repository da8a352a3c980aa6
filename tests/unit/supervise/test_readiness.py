"""Who is told how a start goes."""

import os
import socket
from pathlib import Path

import pytest

from qm.supervise.readiness import Readiness


def test_lines_for_who_waits() -> None:
    """Each service that serves, each that dies, and once "all"; then the descriptor is closed."""
    reader, writer = os.pipe()
    env = {b"QMREADY": b"%d" % writer, b"PATH": b"/bin"}
    readiness = Readiness(env)
    assert env == {b"PATH": b"/bin"}
    readiness.serves("smtp", b"25")
    readiness.died("pop3", 111)
    readiness.all_serve()
    readiness.all_serve()
    readiness.serves("smtp", b"25")
    assert os.read(reader, 4096) == b"ready smtp 25\ndied pop3 111\nall\n"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_nobody_waits() -> None:
    """Without a descriptor, or when its reader has gone, there is nobody to tell."""
    Readiness({}).all_serve()
    reader, writer = os.pipe()
    os.close(reader)
    readiness = Readiness({b"QMREADY": b"%d" % writer})
    readiness.serves("smtp", b"25")
    readiness.all_serve()


def test_a_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of NOTIFY_SOCKET gets READY=1 when all serve, and STOPPING=1 at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        env = {b"NOTIFY_SOCKET": os.fsencode(tmp_path / "notify")}
        readiness = Readiness(env)
        assert env == {}
        readiness.died("pop3", 111)
        readiness.all_serve()
        readiness.stopping()
        assert [manager.recv(100) for _ in range(3)] == [
            b"STATUS=pop3 ended with 111",
            b"READY=1\nSTATUS=all services serve",
            b"STOPPING=1",
        ]
