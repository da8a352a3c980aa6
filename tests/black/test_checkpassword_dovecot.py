"""checkpassword-dovecot, with a real Dovecot behind it."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.unix.userclient import UserClient
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.dovecot import UID, Dovecot

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("dovecot")]
_CLIENTS = itertools.count(5)
WRONG = Refused(b"wrong name or password")


@pytest.fixture
def dovecot(tmp_path: Path) -> Iterator[Path]:
    """A Dovecot that knows ann; gives the directory of its sockets."""
    with bare_home(None) as outside:
        made = Dovecot(outside.folder / "dovecot", {"ann": "{PLAIN}secret"})
        try:
            yield made.start().sockets
        finally:
            made.stop()


@pytest.fixture
def home() -> Iterator[BareHome]:
    with bare_home(None) as home:
        home.control("authfaildelay", "0\n")
        yield home


def login(home: BareHome, name: bytes, secret: bytes) -> LoginAnswer:
    """The answer, to a client that no one has seen: Dovecot holds up those that have failed."""
    address = f"203.0.113.{next(_CLIENTS)}".encode()
    with UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        return ask.answer(AskLogin(Method.PASSWORD, name, secret, b"", address))


def test_dovecot(home: BareHome, dovecot: Path) -> None:
    """Who Dovecot lets in is who its userdb says; wrong passwords and unknown names are not let in."""
    home.control("logins", f"program checkpassword-dovecot {dovecot}\n")
    ann = Login(b"ann", UID, UID, os.fsencode(dovecot.parent / "mail"), b"/bin/sh", b"ann")
    with running(home, "qm-userd") as daemon:
        assert login(home, b"Ann", b"secret") == ann
        for name, secret in ((b"ann", b"Secret"), (b"nobody", b"secret"), (b"ann\t", b"x"), (b"a\nb", b"secret")):
            assert login(home, name, secret) == WRONG, name
        assert login(home, b"ann", b"x\tuser=root") == WRONG
        assert login(home, b"ann", b"secret") == ann
        assert "secret" not in daemon.log()


def test_no_dovecot(home: BareHome) -> None:
    """When Dovecot is away nobody is refused: later."""
    home.control("logins", "program checkpassword-dovecot /nowhere\n")
    with running(home, "qm-userd") as daemon:
        assert isinstance(login(home, b"ann", b"secret"), Later)
        daemon.wait_for_log("cannot ask Dovecot (/nowhere/auth-client: No such file or directory)")


def test_usage(home: BareHome) -> None:
    """Without a program to run there is nothing to do."""
    assert home.run("checkpassword-dovecot", "/run").returncode == 2
