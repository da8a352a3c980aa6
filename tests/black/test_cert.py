"""qm cert: certificates by ACME, from Debian's pebble, and what happens when that does not go well."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from qm.disk import selfsigned
from tests.harness.acme import Pebble
from tests.harness.barehome import ROLES, BareHome, bare_home
from tests.harness.certificates import Authority
from tests.harness.peers import HttpsServer, accepts, free_port
from tests.harness.suite import DOMAIN, Suite
from tests.harness.waiting import wait_for

NAMES: Final = ("mail.x.test", "mx.x.test")
CERTIFICATE: Final = "control/servercert.pem"


class World:
    """A home that trusts the server that it is told of."""

    def __init__(self, home: BareHome) -> None:
        self.home = home
        self.http_port = free_port()
        (home.folder / "run").mkdir()

    def trust(self, roots: Path) -> None:
        shutil.copy(roots, self.home.folder / "roots.pem")
        self.home.control("tlsroots", "roots.pem\n")

    def get(self, url: str, *options: str, names: tuple[str, ...] = NAMES) -> subprocess.CompletedProcess[bytes]:
        where = () if "--webroot" in options else ("--http", f"127.0.0.1:{self.http_port}")
        return self.home.run("qm", "cert", "get", "--agree", "--server", url, *where, *options, *names)

    def renew(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        return self.home.run("qm", "cert", "renew", *options)

    def pem(self, path: str = CERTIFICATE) -> bytes:
        return (self.home.folder / path).read_bytes()

    def certificate(self, path: str = CERTIFICATE) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pem(path))

    def key(self) -> bytes:
        return (
            self.certificate()
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )


@pytest.fixture
def world() -> Iterator[World]:
    with bare_home(None) as home:
        yield World(home)


@contextmanager
def pebble(world: World, nonces_refused: int = 0) -> Iterator[Pebble]:
    with Pebble(world.home.folder.parent / "pebble", NAMES, world.http_port, nonces_refused) as server:
        world.trust(server.roots)
        yield server


@pytest.mark.needs("pebble")
def test_get_and_renew(world: World) -> None:
    """A certificate comes for all names, its key with it, for root's eyes; a renewal keeps the key, and is silent
    while there is nothing to do."""
    with pebble(world, nonces_refused=15) as server:
        done = world.get(server.url)
        assert (done.returncode, done.stderr) == (0, b"")
        first, key = world.certificate(), world.key()
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [*NAMES]
        assert world.pem().count(b"BEGIN CERTIFICATE") == 2
        assert os.stat(world.home.folder / CERTIFICATE).st_mode & 0o777 == 0o600
        assert os.stat(world.home.folder / "control/acme.key").st_mode & 0o777 == 0o600
        shown = world.home.run("qm", "cert", "show")
        assert (shown.returncode, b"mail.x.test, mx.x.test" in shown.stdout) == (0, True)
        quiet = world.renew()
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")
        assert world.certificate() == first
        assert world.renew("--days", "3000").returncode == 0
        assert (world.certificate() != first, world.key() == key) == (True, True)
        assert world.renew("--days", "3000", "--new-key").returncode == 0
        assert world.key() != key


@pytest.mark.needs("pebble")
def test_webroot(world: World) -> None:
    """A web server shows the answers; no file of ours stays there.  Each name may have a certificate of its own."""
    folder = world.home.folder.parent / "www"
    folder.mkdir()
    argv = [sys.executable, "-m", "http.server", str(world.http_port), "-b", "127.0.0.1", "-d", str(folder)]
    with pebble(world) as server, subprocess.Popen(argv, stderr=subprocess.DEVNULL) as web:
        try:
            wait_for(lambda: accepts(world.http_port), "the web server")
            assert world.get(server.url, "--webroot", str(folder), "--each").returncode == 0
        finally:
            web.kill()
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    for name in NAMES:
        assert world.certificate(f"control/servercerts/{name}.pem").public_key()


@pytest.mark.needs("pebble")
def test_a_refused_challenge(world: World) -> None:
    """What the server says is said, the old certificate stays, and the next renewal does not ask so soon."""
    selfsigned.make(str(world.home.folder / CERTIFICATE), ["mail.x.test"])
    before = world.pem()
    with pebble(world) as server:
        world.http_port = free_port()  # the server looks elsewhere
        done = world.get(server.url)
        assert (done.returncode, b"mail.x.test: " in done.stderr or b"mx.x.test: " in done.stderr) == (111, True)
        assert not (world.home.folder / "control/acme").exists()
        text = f"server {server.url}\nagreed\nlisten 127.0.0.1:{world.http_port}\ndefault {' '.join(NAMES)}\n"
        world.home.control("acme", text)
        failed, again, forced = world.renew(), world.renew(), world.renew("--now")
    assert [done.returncode for done in (failed, again, forced)] == [111, 0, 111]
    assert b"nobody vouches for it, and I cannot renew it: the server cannot reach us by that name" in failed.stderr
    assert (again.stderr, world.pem()) == (b"", before)
    assert (world.home.folder / "run/acme").read_text().startswith("2 ")


@pytest.mark.parametrize(
    "answer, why",
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"makes no sense"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\x1b[31m{}", b"makes no sense"),
        ("HTTP/1.1 200 OK\r\n\r\n@@", b"makes no sense"),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b"makes no sense"),
        ("\1garbage", b"cannot be reached"),
    ],
)
def test_a_server_that_talks_garbage(world: World, tmp_path: Path, answer: str, why: bytes) -> None:
    """It is a temporary failure, in words of ours, and changes nothing."""
    authority = Authority(tmp_path)
    world.trust(authority.path)
    with HttpsServer(tmp_path, authority.issue("localhost"), answer) as server:
        done = world.get(f"https://localhost:{server.port}/dir")
    assert (done.returncode, why in done.stderr, b"\x1b" in done.stderr) == (111, True, False)
    assert b"Traceback" not in done.stderr
    assert not (world.home.folder / CERTIFICATE).exists()


def test_a_server_that_is_not_there(world: World) -> None:
    """It is a temporary failure."""
    done = world.get(f"https://localhost:{free_port()}/dir")
    assert (done.returncode, b"cannot be reached" in done.stderr) == (111, True)


def test_a_server_that_nobody_vouches_for(world: World, tmp_path: Path) -> None:
    """The account's key signs nothing for a server whose own certificate is not trusted."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    world.trust(other.path)
    with HttpsServer(tmp_path, authority.issue("localhost"), "") as server:
        done = world.get(f"https://localhost:{server.port}/dir")
        assert server.asked() == []
    assert (done.returncode, b"not trusted" in done.stderr) == (111, True)


def _uids(pid: int) -> tuple[int, int]:
    """A process's user, and whether it may gain rights."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return int(lines["Uid"].split()[0]), int(lines["NoNewPrivs"])


@pytest.mark.needs_root
def test_who_does_what(world: World, tmp_path: Path) -> None:
    """While a server is asked: who speaks to it is qmailr, who listens and who judges are qmaild, and none may gain
    rights.  When their parent is killed, they end, and no half of a file is there."""
    authority = Authority(tmp_path)
    world.trust(authority.path)
    with HttpsServer(tmp_path, authority.issue("localhost"), "!hang") as server:
        argv = ["cert", "get", "--agree", "--server", f"https://localhost:{server.port}/dir", "x.test"]
        argv += ["--http", f"127.0.0.1:{world.http_port}"]
        with subprocess.Popen(
            world.home.command(["qm", *argv]), cwd=world.home.folder, env=world.home.environment(),
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            wait_for(server.asked, "the question")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found = sorted(_uids(int(child)) for child in children)
            process.send_signal(signal.SIGKILL)
        assert found == sorted([(ROLES["qmaild"], 1), (ROLES["qmaild"], 1), (ROLES["qmailr"], 1)])
    wait_for(lambda: not any(map(_lives, children)), "the end of the children")
    files = sorted(path.name for path in (world.home.folder / "control").iterdir())
    assert files == ["acme.key", "me", "roles", "tlsroots"]


def _lives(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.needs("pebble")
def test_tlsd_shows_the_new_one(make_suite: Callable[[], Suite], tmp_path: Path) -> None:
    """A certificate that was got is shown within seconds; a session that is open goes on; rc status tells its end."""
    suite = make_suite().start()
    tmp_path.chmod(0o755)
    with Pebble(tmp_path / "pebble", (DOMAIN,)) as server:
        shutil.copy(server.roots, suite.home / "roots.pem")
        suite.control("tlsroots", "roots.pem\n")
        with suite.under_tls("pop3s") as before:
            assert before.recv(1000).startswith(b"+OK")
            done = suite.run(
                "qm",
                "cert",
                "get",
                "--agree",
                "--server",
                server.url,
                "--http",
                f"127.0.0.1:{server.http_port}",
                DOMAIN,
            )
            assert (done.returncode, done.stderr) == (0, b"")
            suite.wait_for(lambda: "Pebble" in _issuer(suite), "the new certificate")
            before.sendall(b"CAPA\r\n")
            assert before.recv(1000).startswith(b"+OK")
    status = suite.run("qm-rc", "status")
    assert f"the certificate of {DOMAIN} ends in 1825 days" in status.stdout.decode()


def _issuer(suite: Suite) -> str:
    with suite.under_tls("pop3s") as client:
        der = client.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).issuer.rfc4514_string()


def test_make_keeps_a_good_one(world: World) -> None:
    """A certificate that is good gives way with --force only; one that is none does at once."""
    (world.home.folder / CERTIFICATE).write_bytes(b"x")
    assert world.home.run("qm", "cert", "show").returncode == 1
    assert world.home.run("qm", "cert", "make").returncode == 0
    before = world.pem()
    assert world.home.run("qm", "cert", "make").returncode == 100
    assert world.pem() == before
    assert world.home.run("qm", "cert", "make", "--force", "a.test", "b.test").returncode == 0
    shown = world.home.run("qm", "cert", "show")
    assert (shown.returncode, b"a.test, b.test" in shown.stdout, b"nobody vouches" in shown.stdout) == (0, True, True)
