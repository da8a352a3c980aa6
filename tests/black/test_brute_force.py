"""Attack: guess passwords until one is right, from one address and from many; and lock users out by trying."""

from collections.abc import Iterator

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
