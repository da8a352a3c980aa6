"""checkpassword-ldap with a real slapd; and the attack: a name that means something in a filter, no password at all."""

from collections.abc import Iterator

import pytest

from qm.unix.userclient import UserClient
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.slapd import BASE, UID, local_uri, slapd

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("slapd", "slapadd")]
WRONG = Refused(b"wrong name or password")


@pytest.fixture
def home() -> Iterator[BareHome]:
    with bare_home(None) as home:
        home.control("authfaildelay", "0\n")
        yield home


@pytest.fixture
def directory(home: BareHome) -> Iterator[None]:
    """A slapd that is asked by its socket."""
    with slapd(home):
        home.control("logins", f"program checkpassword-ldap {local_uri(home)} {BASE} uid\n")
        yield


def login(home: BareHome, name: bytes, secret: bytes) -> LoginAnswer:
    with UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        return ask.answer(AskLogin(Method.PASSWORD, name, secret, b"", b""))


@pytest.mark.usefixtures("directory")
def test_ldap(home: BareHome) -> None:
    """Who binds with his password is who his entry says; wrong passwords, unknown names and uid 0 are not let in."""
    ann = Login(b"ann", UID, UID, str(home.folder / "home/ann").encode(), b"/bin/sh", b"ann")
    with running(home, "qm-userd") as daemon:
        assert login(home, b"ann", b"secret") == ann
        for name, secret in ((b"ann", b"Secret"), (b"ann", b"other"), (b"nobody", b"secret"), (b"\xff", b"secret")):
            assert login(home, name, secret) == WRONG, name
        assert isinstance(login(home, b"toor", b"secret"), Later)
        daemon.wait_for_log("uid 0")
        assert "secret" not in daemon.log()


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    "name",
    [b"*", b"a*", b"ann)(uid=*", b"*)(uid=ann", b"ann)(|(uid=*)", b"ann\\2a", b"ann)(uidNumber=*)", b"ann,ou=people"],
)
def test_a_name_is_a_name(home: BareHome, name: bytes) -> None:
    """What means something in a filter means nothing in a name: nobody is called so."""
    with running(home, "qm-userd"):
        assert login(home, name, b"secret") == WRONG


@pytest.mark.usefixtures("directory")
def test_no_password(home: BareHome) -> None:
    """A bind without a password succeeds (RFC 4513 section 5.1.2), and is no login."""
    with running(home, "qm-userd"):
        assert login(home, b"ann", b"") == WRONG


def test_no_directory(home: BareHome) -> None:
    """A directory that is away, and one that would be asked in clear over a network, are later."""
    home.control("logins", f"program checkpassword-ldap ldapi://%2Fnowhere {BASE} uid\n")
    with running(home, "qm-userd") as daemon:
        assert isinstance(login(home, b"ann", b"secret"), Later)
        daemon.wait_for_log("cannot ask the directory")


def test_usage(home: BareHome) -> None:
    """Without a program to run there is nothing to do."""
    assert home.run("checkpassword-ldap", "ldapi://x", "dc=test", "uid").returncode == 2
