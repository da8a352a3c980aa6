"""Exchangers that speak TLS, for rspawn in a home of a test's own."""

import shutil
from pathlib import Path
from typing import Any

from tests.harness.barehome import BareHome
from tests.harness.certificates import Authority
from tests.harness.peers import ScriptedMx

OFFER = "250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS"
PLAIN = "250-mx.test\r\n250 PIPELINING"


class TlsWorld:
    """A home, and an authority that it trusts; mail for x.test goes to `mx`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = BareHome(folder / "home", None)
        (folder / "ca").mkdir()
        self.ca = Authority(folder / "ca")
        shutil.copy(self.ca.path, self.home.folder / "roots.pem")
        self.home.control("tlsroots", "roots.pem\n")
        self.certificate = self.ca.issue("x.test")

    def policy(self, text: str) -> None:
        self.home.control("tlspolicy", text + "\n")

    def mx(self, certificate: Path | None = None, address: str = "127.0.0.1", **script: list[Any]) -> ScriptedMx:
        """One that offers STARTTLS, does it with *certificate*, and then says what *script* tells it to."""
        plan = {"EHLO": [OFFER], "EHLO_TLS": [PLAIN], "STARTTLS": [start(certificate or self.certificate)], **script}
        actions = {key.replace("_", "+").replace("dot", "."): value for key, value in plan.items()}
        mx = ScriptedMx(self.folder, actions, address)
        self.home.control("smtproutes", f"x.test:127.0.0.1:{mx.port}\n")
        return mx


def start(certificate: Path) -> list[str]:
    """The answer to STARTTLS."""
    return ["220 go ahead", f"!tls:{certificate}"]
