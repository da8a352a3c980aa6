"""An ACME server of another maker: Debian's pebble, on ports of its own, that asks a DNS server of the test's."""

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.certificates import Authority
from tests.harness.peers import DnsAnswerer, free_port
from tests.harness.waiting import wait_for


class Pebble:
    """It validates at *port* of 127.0.0.1, to which each of *names* leads.  `roots` is what its own server has."""

    def __init__(self, folder: Path, names: tuple[str, ...], port: int = 0, nonces_refused: int = 0) -> None:
        folder.mkdir()
        self._folder = folder
        self._nonces_refused = nonces_refused
        self.port = free_port()
        self.http_port = port or free_port()
        self.management_port = free_port()
        authority = Authority(folder)
        certificate = authority.issue("localhost")
        self.roots = authority.path
        self._dns = DnsAnswerer(folder, {f"{name} A": {"answer": ["127.0.0.1"]} for name in names})
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management_port}",
            "certificate": str(certificate),
            "privateKey": str(certificate),
            "httpPort": self.http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        (folder / "config.json").write_text(json.dumps({"pebble": config}))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/dir"

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        self._dns.__enter__()
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["pebble", "-config", str(self._folder / "config.json"), "-dnsserver", f"127.0.0.1:{self._dns.port}"],
                env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(self._nonces_refused)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: "ACME directory available" in self.log(), "pebble")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._dns.__exit__(kind, error, trace)
