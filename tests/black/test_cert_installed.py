"""qm cert on a machine where qm is installed: as its manual page has it, and as cron runs it."""

import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from qm.disk import layout
from tests.harness.acme import Pebble
from tests.harness.machine import Done, Machine, machine_in
from tests.harness.suite import HOST, ROOT, trusting, wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("unshare", "nsenter", "setpriv", "useradd", "pebble")]
MAIL: Final = "mail.test.example"
OTHER: Final = "mx.test.example"
OWN: Final = "control/servercert.pem"
_CRON: Final = re.compile(r"^\.Dl \S+ \S+ \* \* \*  root  (/var/qm/bin/.*)$", re.MULTILINE)


class Host:
    """A machine with a mail system that runs, and an ACME server that it trusts and that reaches it."""

    def __init__(self, machine: Machine, server: Pebble) -> None:
        self.machine = machine
        self.server = server
        self.order = f"--agree --server {server.url} --http :{server.http_port}"

    def cron(self) -> Done:
        """What cron does with the manual page's line."""
        page = (ROOT / "docs/man/qm.8").read_text()
        (line,) = _CRON.findall(page)
        command = line.replace("/var/qm", str(self.machine.home))
        env = ("env", "-i", "HOME=/root", "LOGNAME=root", "SHELL=/bin/sh", "PATH=/usr/bin:/bin")
        return self.machine.run(*env, "sh", "-c", command, cwd=Path("/root"))

    def differences(self) -> str:
        """What check-install says is not as it should be; nothing else may be wrong with the owners and modes."""
        return "\n".join(f"{path}: {mode:04o}" for path, mode in self._wrong()) + self._check()

    def _check(self) -> str:
        done = self.machine.run("qm", "check-install")
        return "" if done.returncode == 0 else done.stdout

    def _wrong(self) -> Iterator[tuple[str, int]]:
        """Files of certificates that are not exactly as the table has them."""
        for place in layout.PLACES:
            if place.path.startswith(("control/acme", "control/servercert", "run/acme")):
                for path in self.machine.home.glob(place.path):
                    status = path.stat()
                    if (status.st_uid, stat.S_IMODE(status.st_mode)) != (0, place.mode):
                        yield str(path), stat.S_IMODE(status.st_mode)

    def shown(self, name: str = MAIL) -> str:
        """The issuer of what qm-tlsd shows to who calls it by *name*."""
        network = socket.create_connection((HOST, self.ports["pop3s"]), 20)
        with trusting().wrap_socket(network, server_hostname=name) as tls:
            der = tls.getpeercert(binary_form=True) or b""
        return "pebble" if b"Pebble" in der else "itself"

    def start(self) -> None:
        self.ports = self.machine.start()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with machine_in(Path(folder)) as machine, Pebble(Path(folder) / "pebble", (MAIL, OTHER)) as server:
            machine.install()
            machine.choose_ports()
            machine.sh(f"cp {server.roots} roots.pem; echo roots.pem > control/tlsroots")
            host = Host(machine, server)
            host.start()
            yield host


def test_a_fresh_installation(host: Host) -> None:
    """install has made a certificate, make keeps it but for --force, show and rc status tell about it."""
    machine = host.machine
    machine.succeed("qm", "cert", "make", "--force")
    before = (machine.home / OWN).read_bytes()
    kept = machine.run("qm", "cert", "make")
    assert (kept.returncode, f"{OWN} is good" in kept.stdout) == (100, True)
    assert (machine.home / OWN).read_bytes() == before
    said = machine.succeed("qm", "cert", "show")
    for words in (f"names        {MAIL}\n", "nobody vouches for it", "root may read it, mode 0600"):
        assert words in said
    assert re.search(rf"^the certificate of {MAIL} ends in \d+ days$", _status(host), re.MULTILINE)
    assert host.differences() == ""


def test_get(host: Host) -> None:
    """get puts a certificate in place, which is shown within seconds; all files have the table's owners and modes."""
    machine = host.machine
    said = machine.sh(f"qm cert get {host.order} {MAIL} {OTHER}")
    assert said.startswith(f"{OWN}: a certificate for {MAIL}, {OTHER}, good until ")
    wait_for(lambda: host.shown() == "pebble", "the new certificate")
    assert "issuer       CN=Pebble Intermediate CA" in machine.succeed("qm", "cert", "show")
    assert f"the certificate of {MAIL} ends in 1825 days" in _status(host)
    assert host.differences() == ""


def test_get_each(host: Host) -> None:
    """With --each a name has a file of its own, for who calls us by it."""
    machine = host.machine
    machine.succeed("qm", "cert", "make", "--force")
    machine.sh(f"qm cert get --each {host.order} {OTHER}")
    wait_for(lambda: (host.shown(OTHER), host.shown()) == ("pebble", "itself"), "a certificate by name")
    assert f"names        {OTHER}\n" in machine.succeed("qm", "cert", "show")
    assert f"of {OTHER}" not in _status(host), "status names those that end soon"
    assert host.differences() == ""


def test_cron(host: Host) -> None:
    """The line for cron renews what is due and says so, and is silent else."""
    machine = host.machine
    machine.sh(f"qm cert get {host.order} {MAIL}")
    silent = host.cron()
    assert (silent.returncode, silent.stdout) == (0, "")
    machine.succeed("qm", "cert", "make", "--force")
    renewed = host.cron()
    assert (renewed.returncode, renewed.stdout.count("\n")) == (0, 1), renewed.stdout
    assert renewed.stdout.startswith(f"{OWN}: a certificate for {MAIL}, good until ")
    wait_for(lambda: host.shown() == "pebble", "the new certificate")
    assert host.cron().stdout == ""
    assert host.differences() == ""


def test_cron_in_trouble(host: Host) -> None:
    """A renewal that fails says why, once; the old certificate stays, and a later one mends it."""
    machine = host.machine
    machine.sh(f"qm cert get {host.order} {MAIL}")
    machine.succeed("qm", "cert", "make", "--force")
    settings = machine.home / "control/acme"
    right = settings.read_text()
    settings.write_text(right.replace(host.server.url, host.server.url.replace("/dir", "/none")))
    failed, again = host.cron(), host.cron()
    assert (failed.returncode, "I cannot renew it" in failed.stdout) == (111, True), failed.stdout
    assert (again.returncode, again.stdout) == (0, "")
    assert host.differences() == ""
    settings.write_text(right)
    machine.sh("qm cert renew --now")
    wait_for(lambda: host.shown() == "pebble", "the new certificate")
    assert host.differences() == ""


def _status(host: Host) -> str:
    """What rc says; it exits with 0, so nothing that it names is alarming."""
    return host.machine.sh("./rc status")
