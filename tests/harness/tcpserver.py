"""A tcpserver for one test: on a port that the kernel chooses, with a log of its own, running tests/fakes/probe.py."""

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.harness.waiting import LIMIT_S, wait_for

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PROBE: Final = ROOT / "tests" / "fakes" / "probe.py"
PYTHON: Final = ["/usr/bin/python3", "-bb", "-IS", "-c"]
# as the launchers of bin/ do: neither the environment nor the site module has a say
LAUNCH: Final = (
    "import sys, runpy; version = f'python{sys.version_info[0]}.{sys.version_info[1]}'\n"
    f"sys.path[:0] = [{str(ROOT)!r}]; sys.path.append(f'{ROOT}/.venv/lib/{{version}}/site-packages')\n"
    f"sys.argv[0] = {str(PROBE)!r}; runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


class TcpServer:
    """A running tcpserver; *cold*: its program is exec'd for each connection."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        program: Sequence[str] = ("probe",),
        host: str = "127.0.0.1",
        cold: bool = False,
        env: Mapping[str, str] = {},
        cwd: Path | None = None,
    ) -> None:
        self.log_path = folder / f"log{len(list(folder.glob('log*')))}"
        self._cold_program(folder)
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        self.env = {"PATH": f"{folder}:/usr/bin:/bin", "QMHOME": str(folder), "QMREADY": str(writer), **env}
        if cold:
            self.env["QMCOLD"] = "1"
        self.address = "::1" if ":" in host else "127.0.0.1"
        command = [*PYTHON, LAUNCH, *self._words(options, host), *program]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[writer],
                cwd=cwd or folder,
            )
        os.close(writer)
        self.port = int(self._hear(reader) or 0)

    def _words(self, options: Sequence[str], host: str) -> list[str]:
        return ["tcpserver", *options, host, "0"]

    @staticmethod
    def _cold_program(folder: Path) -> None:
        """What PATH has as ``probe``."""
        script = folder / "probe"
        quoted = LAUNCH.replace("'", "'\\''")
        script.write_text(f"#!/bin/sh\nexec {' '.join(PYTHON)} '{quoted}' probe \"$@\"\n")
        script.chmod(0o755)

    def _hear(self, reader: int) -> bytes:
        """The port, if it has one, from the readiness descriptor, which is closed after it."""
        text = b""
        while select.select([reader], [], [], LIMIT_S)[0] and (piece := os.read(reader, 100)):
            text += piece
        os.close(reader)
        if not text.endswith(b"\n"):
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"it does not start: {self.log()}")
        return text.strip()

    def connect(self, line: str = "", source: str = "") -> socket.socket:
        """A connection on which *line* has been sent."""
        channel = socket.create_connection((self.address, self.port), LIMIT_S, (source, 0) if source else None)
        if line:
            channel.sendall(line.encode() + b"\n")
        return channel

    def ask(self, line: str, source: str = "") -> bytes:
        """Everything that the answer to *line* is, up to the end; a reset is an end too."""
        answer = b""
        with self.connect(line, source) as channel:
            try:
                while piece := channel.recv(65536):
                    answer += piece
            except ConnectionResetError:
                pass
        return answer

    def report(self, source: str = "") -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.ask("report", source))
        return told

    def hold(self, source: str = "") -> socket.socket:
        """A connection whose program runs until it is closed."""
        channel = self.connect("hold", source)
        assert channel.recv(5) == b"held\n"
        return channel

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def lines(self) -> list[str]:
        return self.log().splitlines()

    def wait_for_log(self, text: str, count: int = 1) -> None:
        try:
            wait_for(lambda: self.log().count(text) >= count, f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.log()}") from None

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Its exit code after *signum*."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


class IpcServer(TcpServer):
    """A running ipcserver, whose socket is what *host* says."""

    def _words(self, options: Sequence[str], host: str) -> list[str]:
        self.path = host
        return ["ipcserver", *options, host]

    def connect(self, line: str = "", source: str = "") -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(LIMIT_S)
        try:
            if source:
                channel.bind(source)
            channel.connect(self.path)
        except OSError:
            channel.close()
            raise
        if line:
            channel.sendall(line.encode() + b"\n")
        return channel
