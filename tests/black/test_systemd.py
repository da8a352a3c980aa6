"""rc run under a service manager, here the test: the words of sd_notify(3), and the unit."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.suite import ROOT, Suite


def test_run_tells_when_it_serves(make_suite: Callable[[], Suite], tmp_path: Path) -> None:
    """The main process says READY=1 when every service serves, STOPPING=1 at SIGTERM; services see no such socket."""
    suite = make_suite()
    (suite.home / "services").write_text("one: sh -c 'env; echo that is all; exec sleep 1000'\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen([suite.home / "rc", "run"], env=env, stdin=subprocess.DEVNULL) as process:
            text, credentials, _, _ = manager.recvmsg(200, 100)
            assert text.startswith(b"READY=1\n")
            assert int.from_bytes(credentials[0][2][:4], "little") == process.pid
            suite.wait_for_log("that is all")
            assert "QMHOME=" in suite.log()
            assert "NOTIFY_SOCKET" not in suite.log()
            process.terminate()
            assert manager.recv(200) == b"STOPPING=1"
            assert process.wait(30) == 0


@pytest.mark.needs("systemd-analyze")
def test_the_unit_is_one(tmp_path: Path) -> None:
    """systemd understands the unit."""
    text = (ROOT / "packaging/qm.service").read_text().replace("/var/qm/rc", "/bin/true")
    (tmp_path / "qm.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "qm.service"], capture_output=True, text=True, check=False
    )
    assert "qm.service" not in done.stderr.replace(str(tmp_path), ""), done.stderr
