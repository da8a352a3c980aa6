"""Our checkpassword programs in a home, and for users' homes, below a directory that only root can search."""

import os
import poplib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from qm.unix.userclient import UserClient
from qm.wire.userquery import AskLogin, Login, LoginAnswer, Method
from tests.black.test_checkpassword_oauth import bearer
from tests.black.test_checkpassword_oauth import prepare as prepare_tokens
from tests.black.test_quickstart import copy_checkout
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.certificates import Authority
from tests.harness.dovecot import UID, Dovecot
from tests.harness.saslclient import Sasl, name_of
from tests.harness.slapd import BASE, local_uri, slapd
from tests.harness.suite import HOST, Suite
from tests.harness.waiting import LIMIT_S

pytestmark = pytest.mark.needs_root
ANN: Final = b"ann"


@pytest.fixture
def home(tmp_path: Path) -> BareHome:
    """One below pytest's directories, which are root's alone."""
    home = BareHome(tmp_path / "home", None)
    home.control("authfaildelay", "0\n")
    os.chown(home.folder / "home/ann", UID, UID)
    return home


@pytest.fixture
def outside() -> Iterator[BareHome]:
    """A place for the servers of others, which everybody reaches."""
    with bare_home(None) as outside:
        yield outside


def _dovecot(outside: BareHome, home: Path) -> Dovecot:
    """One that says that ann's home is *home*."""
    made = Dovecot(outside.folder / "dovecot", {"ann": "{PLAIN}secret"})
    passwd = made.home / "passwd"
    passwd.write_text(passwd.read_text().replace(str(made.mail), str(home)))
    return made.start()


def _login(home: BareHome) -> LoginAnswer:
    with UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        return ask.answer(AskLogin(Method.PASSWORD, ANN, b"secret", b"", b"203.0.113.9"))


def _ann(home: BareHome) -> Login:
    return Login(ANN, UID, UID, os.fsencode(home.folder / "home/ann"), b"/bin/sh", ANN)


def test_oauth(home: BareHome) -> None:
    """A program that is qmailp finds its keys, and control/, from the home in which userd has started it."""
    prepare_tokens(home)
    with running(home, "qm-userd"), UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        assert name_of(Sasl(ask, b"OAUTHBEARER").say(bearer())) == b"ann@me.example"


@pytest.mark.needs("dovecot")
def test_dovecot(home: BareHome, outside: BareHome) -> None:
    """checkpassword-dovecot enters the user's home before it is the user."""
    dovecot = _dovecot(outside, home.folder / "home/ann")
    try:
        home.control("logins", f"program checkpassword-dovecot {dovecot.sockets}\n")
        with running(home, "qm-userd"):
            assert _login(home) == _ann(home)
    finally:
        dovecot.stop()


@pytest.mark.needs("slapd", "slapadd")
def test_ldap(home: BareHome, outside: BareHome) -> None:
    """So does checkpassword-ldap; its child finds control/ though it is qmailp."""
    home.control("logins", f"program checkpassword-ldap {local_uri(outside)} {BASE} uid\n")
    home.control("tlsroots", "root.pem\n")
    Authority(home.folder)
    with slapd(outside, people_home=home.folder / "home/ann"), running(home, "qm-userd"):
        assert _login(home) == _ann(home)


class ClosedCheckout(BareHome):
    """Its programs, too, lie where only root can search."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "home", None)
        copy_checkout(folder / "qm")
        self._bin = folder / "qm/bin"

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["/usr/bin/python3", "-bb", "-IS", str(self._bin / argv[0]), *argv[1:]]


@pytest.mark.needs("slapd", "slapadd")
def test_ldap_in_a_checkout_of_roots(tmp_path: Path, outside: BareHome) -> None:
    """What its child needs checkpassword-ldap has imported before that is qmailp."""
    home = ClosedCheckout(tmp_path)
    home.control("logins", f"program checkpassword-ldap {local_uri(outside)} {BASE} uid\n")
    with slapd(outside, people_home=home.folder / "home/ann"), running(home, "qm-userd"):
        assert _login(home) == _ann(home)


@pytest.mark.needs("dovecot")
def test_before_a_pop3_server(make_suite: Callable[[], Suite], outside: BareHome) -> None:
    """Behind popup, and before pop3d, checkpassword-dovecot opens a Maildir in such a home."""
    suite = make_suite()
    maildir = suite.maildir()
    (maildir / "new/1").write_bytes(b"Subject: here\n\n")
    for path in [maildir.parent, *maildir.parent.rglob("*")]:
        os.chown(path, UID, UID)
    dovecot = _dovecot(outside, maildir.parent)
    listen = f"tcpserver -u 0 -g 0 -H -R -l 0 {HOST} 0"
    suite.service("pop3", f"{listen} qm-popup test.example checkpassword-dovecot {dovecot.sockets} qm-pop3d Maildir")
    try:
        suite.start()
        client = poplib.POP3(HOST, suite.pop3_port, timeout=LIMIT_S)
        client.user("ann")
        client.pass_("secret")
        assert client.stat()[0] == 1
        client.quit()
    finally:
        dovecot.stop()


def test_who_else_comes_by(home: BareHome) -> None:
    """Another's program starts in the home, and is told by QMHOME where that is."""
    (home.folder / "check").write_text('#!/bin/sh\ncat control/me >seen; echo "$QMHOME" >>seen; exit 1\n')
    (home.folder / "check").chmod(0o755)
    home.control("logins", "program ./check\n")
    with running(home, "qm-userd"):
        _login(home)
    assert (home.folder / "seen").read_text() == f"me.example\n{home.folder}\n"
