"""What rc status counts."""

import socket
from pathlib import Path

import pytest

from qm.supervise import numbers


@pytest.mark.parametrize("family, host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_connections(family: socket.AddressFamily, host: str) -> None:
    """Those that were accepted count; what waits in the backlog, and who only listens, does not."""
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert numbers.connections(port) == 0
        with socket.create_connection((host, port)):
            assert numbers.connections(port) == 0
            accepted, _ = listener.accept()
            with accepted:
                assert numbers.connections(port) == 1


@pytest.mark.parametrize(
    "words, most",
    [
        ("tcpserver -v -H -R -c 100 0 25 qm-smtpd", 100),
        ("/bin/tcpserver -c7 0 25 qm-smtpd", 7),
        ("tcpserver 0 25 qm-smtpd", 40),
        ("tcpserver -c x 0 25 qm-smtpd", 40),
        ("qm-start ./Maildir/", 0),
        ("", 0),
    ],
)
def test_limit(words: str, most: int) -> None:
    """tcpserver's -c, together or apart, or its default; other programs take no connections."""
    assert numbers.limit(words.encode().split()) == most


def test_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many messages are in each directory; nothing where one cannot be read."""
    monkeypatch.chdir(tmp_path)
    assert numbers.queue() == ""
    for folder, count in (("new", 1), ("cur", 2), ("bad", 0)):
        (tmp_path / "queue" / folder).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "queue" / folder / str(number)).touch()
    assert numbers.queue() == "1 new, 2 under way or waiting, 0 bad"
    (tmp_path / "queue/held").mkdir()
    assert numbers.queue() == "1 new, 2 under way or waiting, 0 held, 0 bad"
