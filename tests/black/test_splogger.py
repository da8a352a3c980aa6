"""splogger behind qm-start, as the guides type it, and a syslog that this test plays."""

import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.suite import BIN, Suite, wait_for

STOP_S = 40


class Syslog:
    """The other end of /dev/log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log"
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self._socket.setblocking(False)

    def read(self) -> list[str]:
        while True:
            try:
                self.lines.append(self._socket.recv(8192).decode("ascii"))
            except BlockingIOError:
                return self.lines

    def __enter__(self) -> "Syslog":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where qmaill can come to, unlike to pytest's own directories."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _start(suite: Suite, log: Path, command: str) -> subprocess.Popen[bytes]:
    words = f"env - PATH={BIN}:/usr/bin:/bin QMHOME={suite.home} QMSYSLOG={log} {command}".split()
    return subprocess.Popen(words, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _queue(suite: Suite) -> None:
    assert suite.queue(b"Subject: hello\n\nbody\n", b"Fbob@elsewhere.example\0Tann@test.example\0\0") == 0


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_S)


def test_the_guides_line(make_suite: Callable[[], Suite], folder: Path) -> None:
    """``env - PATH=... qm-start ./Maildir splogger qmail`` logs each line to syslog, as qmail's would."""
    suite = make_suite()
    suite.dot_qmail("ann", "./Maildir/\n")  # as the guide's skeleton has it; ./Maildir alone is an mbox
    with Syslog(folder) as syslog:
        process = _start(suite, syslog.path, "qm-start ./Maildir splogger qmail")
        try:
            wait_for(lambda: any("status: local 0/10 remote 0/20" in line for line in syslog.read()), "send")
            _queue(suite)
            wait_for(lambda: any(" end msg " in line for line in syslog.read()), "the delivery")
            assert len(suite.wait_for_mail()) == 1
        finally:
            code = _stop(process)
        wait_for(lambda: any("status: exiting" in line for line in syslog.read()), "".join(syslog.lines))
    assert code == 0
    assert all(line.startswith("<22>") and " qmail: 1" in line for line in syslog.lines)


def test_lines(folder: Path) -> None:
    """Without arguments it is `splogger` and facility mail; a stamp, long lines go on behind a +, no empty line."""
    stamp = r"\d{10}\.\d{6}"
    with Syslog(folder) as syslog:
        done = subprocess.run(
            [BIN / "splogger"], input=b"warning: a\x1b\xffb\n\n" + b"x" * 800 + b"\nno end",
            env={"QMSYSLOG": str(syslog.path)}, timeout=STOP_S, check=False,
        )  # fmt: skip
        lines = [re.sub(r"(?<=>)\w{3} [ \d]\d [\d:]{8}", "", line) for line in syslog.read()]
    assert done.returncode == 0
    wanted = [
        f"<20> splogger: {stamp} warning: a\\?\\?b",
        f"<22> splogger: {stamp} x{{799}}",
        rf"<22> splogger: {stamp}\+x",
        f"<22> splogger: {stamp} no end",
    ]
    assert len(lines) == len(wanted)
    assert [re.fullmatch(want, line) is not None for want, line in zip(wanted, lines, strict=True)] == [True] * 4


def _mail_goes_on(suite: Suite, log: Path) -> None:
    suite.dot_qmail("ann", "./Maildir/\n")
    process = _start(suite, log, "qm-start ./Maildir splogger qmail")
    try:
        wait_for(lambda: (suite.home / "queue/socket").exists(), "the queue")
        for count in range(1, 6):
            _queue(suite)
            suite.wait_for_mail(count)
    finally:
        code = _stop(process)
    assert code == 0


def test_mail_goes_on_without_syslog(make_suite: Callable[[], Suite], folder: Path) -> None:
    """A syslog that is missing holds up no mail."""
    _mail_goes_on(make_suite(), folder / "log")


def test_mail_goes_on_when_syslog_is_full(make_suite: Callable[[], Suite], folder: Path) -> None:
    """A syslog that takes nothing holds up no mail."""
    with Syslog(folder) as syslog:
        _mail_goes_on(make_suite(), syslog.path)
