"""Attack: guess passwords until one is right, from one address and from many; and lock users out by trying."""

import os
import re
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qm.disk import passwd
from qm.unix.userclient import UserClient
from qm.wire.sasl import Fault
from qm.wire.userquery import Login, Refused
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.saslclient import Sasl, fault, guess, name_of, scram_login

HOME = b"192.0.2.10"  # where ann is at home
NETWORK = b"203.0.113.%d"


@pytest.fixture
def ask() -> Iterator[UserClient]:
    """A userd with small limits; ann has logged in from her own address."""
    with bare_home(None) as home:
        _prepare(home)
        with running(home, "qm-userd"), UserClient(str(home.folder / "users/socket"), 20.0) as ask:
            assert isinstance(guess(ask, b"pencil", address=HOME), Login)
            yield ask


def _prepare(home: BareHome) -> None:
    for name, limit in (("authfailaddress", 4), ("authfailaccount", 8), ("authfaildelay", 0)):
        home.control(name, f"{limit}\n")
    home.control("logins", "passwd\n")
    login = Login(b"ann", home.mailbox_uid, home.mailbox_uid, b"home/ann", b"/bin/sh")
    for name in (b"ann", b"bob"):
        passwd.put(name, b"pencil", login, directory=str(home.folder / "users"))


def unseen(answer: object) -> bool:
    return isinstance(answer, Refused) and answer.unchecked


def test_from_one_address(ask: UserClient) -> None:
    """One address has a few guesses, at whatever names; then even the right password is not looked at."""
    names = (b"ann", b"bob", b"who")
    guesses = [guess(ask, b"guess%d" % number, names[number % 3], NETWORK % 1) for number in range(20)]
    assert [unseen(one) for one in guesses] == [False] * 4 + [True] * 16
    assert unseen(guess(ask, b"pencil", b"bob", NETWORK % 1))


def test_from_one_ipv6_network(ask: UserClient) -> None:
    """All addresses of a /64 are one."""
    guesses = [guess(ask, b"guess%d" % number, b"ann", b"2001:db8::%x" % (number + 1)) for number in range(6)]
    assert [unseen(one) for one in guesses] == [False] * 4 + [True] * 2


def test_from_many_addresses(ask: UserClient) -> None:
    """Many addresses share the account's guesses; the user at home notices nothing, and others neither."""
    guesses = [guess(ask, b"guess%d" % number, address=NETWORK % number) for number in range(20)]
    assert [unseen(one) for one in guesses] == [False] * 8 + [True] * 12
    assert unseen(guess(ask, b"pencil", address=NETWORK % 99)), "also the right one, or the thief would know"
    assert isinstance(guess(ask, b"pencil", address=HOME), Login)
    assert isinstance(guess(ask, b"pencil", b"bob", NETWORK % 99), Login)


def test_an_account_that_nobody_has(ask: UserClient) -> None:
    """A name that does not exist is locked like one that does."""
    guesses = [guess(ask, b"guess%d" % number, b"nobody", NETWORK % number) for number in range(10)]
    assert [unseen(one) for one in guesses] == [False] * 8 + [True] * 2


def test_by_another_mechanism(ask: UserClient) -> None:
    """Methods share the budget: who has used it up by PLAIN has none for SCRAM."""
    for number in range(4):
        assert fault(scram_login(Sasl(ask, b"SCRAM-SHA-256", address=NETWORK % 1), b"guess%d" % number)) is Fault.WRONG
    assert fault(Sasl(ask, b"PLAIN", address=NETWORK % 1).say(b"\0ann\0pencil")) is Fault.LOCKED
    assert name_of(Sasl(ask, b"PLAIN", address=HOME).say(b"\0ann\0pencil")) == b"ann"


def test_beside_the_user(ask: UserClient) -> None:
    """Who shares the user's address guesses against a budget of that place, and the user elsewhere is free."""
    guesses = [guess(ask, b"guess%d" % number, address=HOME) for number in range(6)]
    assert [unseen(one) for one in guesses] == [False] * 4 + [True] * 2
    assert isinstance(guess(ask, b"pencil", address=NETWORK % 7), Login)


def test_a_device_with_an_old_password(ask: UserClient) -> None:
    """The same wrong password a hundred times locks nobody out."""
    assert not any(unseen(guess(ask, b"old", address=HOME)) for _ in range(30))
    assert isinstance(guess(ask, b"pencil", address=HOME), Login)


# by the programs that strangers talk to

GUESSES = 10_000


@contextmanager
def _session(home: BareHome, address: bytes, *argv: str) -> Iterator[socket.socket]:
    """A program of the network's side, whose client has *address*; it may guess as often as it likes."""
    ours, theirs = socket.socketpair()
    env = {**home.environment(), "TCPREMOTEIP": address.decode(), "SUBMISSION": ""}
    with (home.folder / "log.session").open("ab") as log, ours:
        program = subprocess.Popen(
            home.command(argv), cwd=home.folder, env=env, stdin=theirs, stdout=theirs, stderr=log
        )
        theirs.close()
        ours.settimeout(60)
        try:
            yield ours
        finally:
            ours.close()
            program.wait(60)


def _replies(peer: socket.socket, commands: list[bytes], most: int = 200) -> list[bytes]:
    """The greeting and a reply for each command, which are said no more than *most* at once."""
    lines = peer.makefile("rb")
    replies = [lines.readline()]
    for start in range(0, len(commands), most):
        some = commands[start : start + most]
        peer.sendall(b"".join(some))
        replies += [lines.readline() for _ in some]
    lines.close()
    return replies


POP3 = ("qm-popup", "mx.example", "checkpassword", "qm-pop3d", "Maildir")
SMTP = ("qm-smtpd",)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("argv", "right", "wrong", "unseen_reply"),
    [(POP3, b"+OK", b"-ERR [AUTH]", b"-ERR [SYS/TEMP]"), (SMTP, b"235", b"535", b"454")],
    ids=["POP3", "SMTP"],
)
def test_ten_thousand_guesses(argv: tuple[str, ...], right: bytes, wrong: bytes, unseen_reply: bytes) -> None:
    """Of ten thousand guesses from ten places, without any delay, as many are looked at as an account may fail.

    The user, who has logged in from his own place before, still can; every guess has its line in the log.
    """
    with bare_home(None) as home:
        _prepare(home)
        for name in ("maxerrors", "maxlogins", "maxcommands"):
            home.control(name, f"{GUESSES}\n")
        home.control("authclear", "1\n")
        home.control("authfailaddress", "100\n")
        home.control("authfailaccount", "50\n")
        home.control("authfailtime", "8640000\n")  # nothing is paid back meanwhile
        _maildir(home)
        with running(home, "qm-userd"):
            good = b"AUTH PLAIN " + b64encode(b"\0ann\0pencil") + b"\r\n"

            def attempt(address: bytes, commands: list[bytes]) -> list[bytes]:
                with _session(home, address, *argv) as peer:
                    return _replies(peer, commands)[1:]

            assert attempt(HOME, [good])[0].startswith(right)
            seen: list[bytes] = []
            for place in range(10):
                guesses = [b64encode(b"\0ann\0guess %d %d" % (place, one)) for one in range(GUESSES // 10)]
                seen += attempt(NETWORK % place, [b"AUTH PLAIN " + guess + b"\r\n" for guess in guesses])
            looked_at = [reply for reply in seen if reply.startswith(wrong)]
            assert len(seen) == GUESSES
            assert len(looked_at) == 50
            assert len([reply for reply in seen if reply.startswith(unseen_reply)]) == GUESSES - len(looked_at)
            assert attempt(NETWORK % 99, [good])[0].startswith(unseen_reply), (
                "also the right one, or the thief would know"
            )
            assert attempt(HOME, [good])[0].startswith(right)
        log = (home.folder / "log.session").read_text()
        assert len(re.findall(r"login (?:name=)?ann", log)) == GUESSES + 3
        assert "guess" not in log


def _maildir(home: BareHome) -> None:
    maildir = home.folder / "home/ann/Maildir"
    for folder in (maildir, *(maildir / name for name in ("tmp", "new", "cur"))):
        folder.mkdir()
        os.chown(folder, home.mailbox_uid, home.mailbox_uid)
