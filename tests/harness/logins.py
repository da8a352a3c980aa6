"""A suite whose ann@test.example can log in by every mechanism, and what her clients need for that."""

import base64
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from scramp import ScramClient

from qm.disk import passwd
from tests.harness.certificates import Authority
from tests.harness.suite import DOMAIN, HOST, Suite

MECHANISMS: Final = ("SCRAM-SHA-256", "OAUTHBEARER", "EXTERNAL", "CRAM-MD5", "PLAIN", "LOGIN")
ISSUER: Final = "https://id.example"
NAME: Final = "ann"
SECRET: Final = "geheim und lang"


class Everybody:
    """The suite, its authority (*roots*), ann's certificate with its key, and her tokens."""

    def __init__(self, folder: Path) -> None:
        self.suite = Suite(folder / "home")
        control = self.suite.home / "control"
        (folder / "ca").mkdir()
        authority = Authority(folder / "ca")
        self.roots, self.certificate = authority.path, authority.issue(NAME, client=True)
        self.certificate.chmod(0o600)
        self.strangers_certificate = Authority(folder / "ca", "another").issue(NAME, client=True)
        shutil.copy(authority.issue(DOMAIN, "localhost"), control / "servercert.pem")
        (control / "servercert.pem").chmod(0o600)
        shutil.copy(authority.path, control / "clientca.pem")
        self._key = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256"})
        (self.suite.home / "keys").write_text(json.dumps(KeySet([self._key]).as_dict(private=False)))
        self.suite.control("authmechanisms", "".join(f"{word}\n" for word in MECHANISMS))
        self.suite.control("logins", f"passwd\noauthbearer checkpassword-oauth keys {ISSUER} mail sub\n")
        self.suite.control("authfaildelay", "0\n")
        for name in ("authfailaddress", "authfailaccount"):
            self.suite.control(name, "0\n")
        self.suite.add_user(NAME, SECRET, apop=True)
        passwd.allow_certificate(NAME.encode(), directory=str(self.suite.home / "users"))

    def token(self, name: str = NAME, lasts_s: int = 300) -> str:
        claims = {"iss": ISSUER, "aud": "mail", "exp": int(time.time()) + lasts_s, "sub": name}
        return jwt.encode({"alg": "ES256", "kid": "one"}, claims, self._key)

    def run(self, *argv: str, input: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        """A client of another maker's."""
        env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(self.suite.home), "LC_ALL": "C", **env}
        return subprocess.run(argv, input=input, env=env, cwd="/", capture_output=True, timeout=60, check=False)

    def address(self, service: str) -> str:
        return f"{HOST}:{self.suite.port(service)}"

    def clear(self) -> None:
        """Empty ann's mailbox."""
        for path in self.suite.maildir(NAME).glob("*/*"):
            os.unlink(path)


@contextmanager
def everybody_logs_in(prepare: Callable[[Suite], None] = lambda _: None) -> Iterator[Everybody]:
    """One that runs, where every role can reach it; it must end well.  *prepare* is done before it starts."""
    with tempfile.TemporaryDirectory(prefix="qm-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        made = Everybody(Path(folder))
        prepare(made.suite)
        try:
            made.suite.start()
            yield made
        finally:
            print(made.suite.log())
            made.suite.stop()
        assert not made.suite.alerts()


def scram_login(
    ask: Callable[[str], bytes], go_on: bytes, tls: ssl.SSLSocket, secret: str, binding: str, data: bytes | None = None
) -> bytes:
    """What the server says at last to a client that binds its channel by *binding*, or not; *data* is what it says
    that it has seen there, in the place of what it has.

    *go_on* stands before a challenge.  The server must have proved that it knows the password, too.
    """
    mechanism = f"SCRAM-SHA-256{'-PLUS' if binding else ''}"
    scram = ScramClient([mechanism], NAME, secret, channel_binding=(binding, data or tls) if binding else None)
    reply = ask(f"AUTH {mechanism} {_encoded(scram.get_client_first())}")
    assert reply.startswith(go_on), reply
    scram.set_server_first(_decoded(reply.removeprefix(go_on)))
    reply = ask(_encoded(scram.get_client_final()))
    if not reply.startswith(go_on):
        return reply
    scram.set_server_final(_decoded(reply.removeprefix(go_on)))
    return ask("")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(word: bytes) -> str:
    return base64.b64decode(word).decode()
