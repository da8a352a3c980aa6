"""What rc status counts."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qm.disk import certfiles, selfsigned
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
        ("ipcserver -o postfix -c 7 /run/qm/lmtp qm-lmtpd", 7),
        ("tcpserver -c x 0 25 qm-smtpd", 40),
        ("qm-start ./Maildir/", 0),
        ("", 0),
    ],
)
def test_limit(words: str, most: int) -> None:
    """The -c of tcpserver and ipcserver, together or apart, or its default; other programs take no connections."""
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
    (tmp_path / "queue/import").mkdir()
    assert numbers.queue() == "1 new, 2 under way or waiting, 0 held, 0 bad"
    (tmp_path / "queue/import/1").touch()
    assert numbers.queue().endswith(", 0 bad, 1 taken by an import that has not ended")


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default's end is told, and of others what ends soon, has ended or is none; what is a FIFO holds nobody up."""
    monkeypatch.chdir(tmp_path)
    assert numbers.certificates("mx.test", datetime.now(UTC)) == []
    (tmp_path / certfiles.BY_NAME).mkdir(parents=True)
    end = datetime.now(UTC) + timedelta(days=selfsigned.DAYS)
    selfsigned.make(certfiles.DEFAULT, ["mx.test"])
    selfsigned.make(f"{certfiles.BY_NAME}/_.a.test.pem", ["*.a.test"])
    (tmp_path / certfiles.BY_NAME / "b.test.pem").write_text("x")
    os.mkfifo(f"{certfiles.BY_NAME}/c.test.pem")
    told = numbers.certificates("mx.test", end - timedelta(days=14, hours=1))
    none = "warning: control/servercerts/b.test.pem has no certificate"
    assert told == ["the certificate of mx.test ends in 14 days", none]
    told = numbers.certificates("mx.test", end - timedelta(days=13, hours=1))
    assert told[0] == "warning: the certificate of mx.test ends in 13 days (control/servercert.pem)"
    assert told[1] == "warning: the certificate of *.a.test ends in 13 days (control/servercerts/_.a.test.pem)"
    assert "certificate of mx.test has EXPIRED" in numbers.certificates("mx.test", end + timedelta(hours=1))[0]
