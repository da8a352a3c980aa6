"""The other side, as processes: the fakes of tests/fakes, and Postfix's smtp-sink."""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.harness.waiting import wait_for

FAKES: Final = Path(__file__).resolve().parent.parent / "fakes"
START_S: Final = 20.0


def _new_log(folder: Path, name: str) -> Path:
    path = folder / f"{name}.{len(list(folder.glob(name + '.*')))}"
    path.touch()
    return path


class _Peer:
    """A process that says on its output on which port it listens."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen([sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        ready = select.select([self.process.stdout], [], [], START_S)[0]
        self.port = int(self.process.stdout.readline()) if ready else 0

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class ScriptedMx(_Peer):
    """tests/fakes/scripted_mx.py; *address* may have a port, as ``127.0.0.1/2525``."""

    def __init__(self, folder: Path, script: Mapping[str, Any] | None = None, address: str = "127.0.0.1") -> None:
        self._log = _new_log(folder, "mx")
        super().__init__([str(FAKES / "scripted_mx.py"), address, json.dumps(script or {}), str(self._log)])

    def heard(self) -> list[dict[str, Any]]:
        """Everything, in order."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def lines(self) -> list[str]:
        """The commands, without their CRLF."""
        return [entry["line"].rstrip("\r\n") for entry in self.heard() if "line" in entry]

    def texts(self) -> list[str]:
        """The messages that came whole by DATA, as they were on the wire."""
        return [entry["text"] for entry in self.heard() if "text" in entry]

    def handshakes(self) -> list[dict[str, Any]]:
        """Of TLS, those that succeeded: version and name asked for."""
        return [entry for entry in self.heard() if "tls" in entry]

    def sessions(self) -> int:
        return sum("open" in entry for entry in self.heard())


class DnsAnswerer(_Peer):
    def __init__(self, folder: Path, script: Mapping[str, Any]) -> None:
        self._log = _new_log(folder, "dns")
        super().__init__([str(FAKES / "dns_answerer.py"), json.dumps(script), str(self._log)])

    def asked(self) -> list[str]:
        """``name TYPE``, in order, with `` TCP`` where it was."""
        return self._log.read_text().splitlines()


class HttpsServer(_Peer):
    """tests/fakes/https_server.py."""

    def __init__(self, folder: Path, certificate: Path, answer: str) -> None:
        self._log = _new_log(folder, "https")
        super().__init__([str(FAKES / "https_server.py"), str(certificate), answer, str(self._log)])

    def asked(self) -> list[str]:
        return self._log.read_text().splitlines()


def free_port(address: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class SmtpSink:
    """Postfix's smtp-sink with *options*, on 127.0.0.1."""

    def __init__(self, *options: str) -> None:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        for _ in range(5):  # somebody may take the port before it does
            self.port = free_port()
            argv = ["/usr/sbin/smtp-sink", *user, *options, f"127.0.0.1:{self.port}", "100"]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: self.process.poll() is not None or accepts(self.port), "smtp-sink")
            if self.process.poll() is None:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
