"""checkpassword-ldap and a real slapd with TLS: ldaps, StartTLS, wrong certificates, and no password in clear."""

import datetime
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qm.unix.userclient import UserClient
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.certificates import Authority
from tests.harness.slapd import BASE, slapd
from tests.harness.waiting import wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("slapd", "slapadd")]
AWAY = "192.0.2.1"  # an address that is not this machine's, in a network of the test's own


def login(home: BareHome, secret: bytes = b"secret") -> LoginAnswer:
    with UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        return ask.answer(AskLogin(Method.PASSWORD, b"ann", secret, b"", b""))


@pytest.fixture
def home() -> Iterator[BareHome]:
    with bare_home(None) as home:
        home.control("authfaildelay", "0\n")
        yield home


@pytest.fixture
def authority(home: BareHome) -> Authority:
    """One that the home trusts."""
    authority = Authority(home.folder)
    home.control("tlsroots", f"{authority.path.name}\n")
    return authority


def _port() -> int:
    """One that is free now; slapd cannot tell which one it has got."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _ask(home: BareHome, uri: str) -> None:
    home.control("logins", f"program checkpassword-ldap {uri} {BASE} uid\n")


def test_ldaps(home: BareHome, authority: Authority) -> None:
    """By ldaps ann gets in with her password, and not with another."""
    port = _port()
    with slapd(home, [f"ldaps://127.0.0.1:{port}"], authority.issue("localhost", "127.0.0.1")):
        for host in ("localhost", "127.0.0.1"):
            _ask(home, f"ldaps://{host}:{port}")
            with running(home, "qm-userd"):
                assert isinstance(login(home), Login)
                assert isinstance(login(home, b"guess"), Refused)


@pytest.mark.parametrize("wrong", ["name", "authority", "nobody", "too old"])
def test_a_wrong_certificate(home: BareHome, authority: Authority, wrong: str) -> None:
    """A server with another's certificate, one of an unknown authority, or one that is over, gets no password."""
    port = _port()
    certificate = authority.issue("other.test" if wrong == "name" else "localhost")
    if wrong == "authority":
        certificate = Authority(home.folder, "stranger").issue("localhost")
    if wrong == "too old":
        certificate = authority.issue("localhost", life=-datetime.timedelta(days=1))
    if wrong == "nobody":
        (home.folder / "control/tlsroots").unlink()
    _ask(home, f"ldaps://localhost:{port}")
    with slapd(home, [f"ldaps://127.0.0.1:{port}"], certificate), running(home, "qm-userd") as daemon:
        assert isinstance(login(home), Later)
        daemon.wait_for_log("cannot ask the directory")


def test_a_directory_that_says_nothing(home: BareHome, authority: Authority) -> None:
    """A server that accepts and is silent is given up."""
    home.control("timeoutlogin", "2\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _ask(home, f"ldaps://localhost:{listener.getsockname()[1]}")
        with running(home, "qm-userd"):
            assert isinstance(login(home), Later)


@contextmanager
def _network() -> Iterator[list[str]]:
    """What runs a command in a network of its own, where AWAY is."""
    name = f"qm-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        for words in (["link", "set", "lo", "up"], ["addr", "add", f"{AWAY}/32", "dev", "lo"]):
            subprocess.run(["ip", "-n", name, *words], check=True, timeout=20)
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


@pytest.mark.needs("ip")
@pytest.mark.parametrize("certified", [True, False], ids=["StartTLS", "none"])
def test_over_a_network(home: BareHome, authority: Authority, certified: bool) -> None:
    """At an address of another machine StartTLS comes first; a server without it never sees a password."""
    certificate = authority.issue(AWAY) if certified else None
    _ask(home, f"ldap://{AWAY}")
    with _network() as prefix, slapd(home, [f"ldap://{AWAY}"], certificate, prefix):
        with _dumped(home, prefix) as packets, running(home, "qm-userd", prefix=prefix) as daemon:
            answer = login(home)
            if certified:
                assert isinstance(answer, Login)
                assert isinstance(login(home, b"guess"), Refused)
            else:
                assert isinstance(answer, Later)
                daemon.wait_for_log("cannot ask the directory")
        assert b"1.3.6.1.4.1.1466.20037" in packets.read_bytes(), "StartTLS is what came in clear"
        assert b"secret" not in packets.read_bytes()


@contextmanager
def _dumped(home: BareHome, prefix: list[str]) -> Iterator[Path]:
    """A file with all that goes by in that network."""
    path = home.folder / "packets"
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
        "f = open(sys.argv[1], 'wb', 0)\n"
        "f.write(b'ready')\n"
        "while True: f.write(s.recv(65536))\n"
    )
    process = subprocess.Popen([*prefix, "/usr/bin/python3", "-c", script, str(path)])
    try:
        wait_for(lambda: path.exists() and path.stat().st_size > 0, "a socket that hears all")
        yield path
    finally:
        process.kill()
        process.wait()
