"""What userd decides."""

import hmac
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Temporary
from qm.unix.accounts import Account, Shadow
from qm.userd import policy
from qm.userd.policy import Remembered, digest, exists, of_account
from qm.wire.assign import User
from qm.wire.passwdfile import Entry
from qm.wire.route import Rules
from qm.wire.storedsecret import Secrets
from qm.wire.userquery import Exists, Login, Method, Verdict

RULES = Rules(b"me.example", frozenset((b"me.example",)), frozenset(), {b"v.example": b"virt"})
LOGIN = Login(b"ann", 1001, 1002, b"/home/ann", b"/bin/sh")
ENTRY = Entry(b"ann", Secrets(b"$6$salt$hash"), LOGIN)
PLAIN = ENTRY._replace(secrets=Secrets(b"{PLAIN}tanstaaf"))
DAY = 20000
SHADOW = Shadow(b"$6$salt$hash", DAY - 100, 99999, -1, -1)
ACCOUNT = Account(b"ann", 1001, 1002, b"/home/ann", b"/bin/sh")


class _Here:
    """A machine with mailboxes of the names given, which notes what it was asked."""

    def __init__(self, *locals_: bytes) -> None:
        self.locals = locals_
        self.asked: list[bytes] = []

    def find(self, local: bytes) -> User:
        self.asked.append(local)
        return User(b"u", 1, 1, b"/h", b"-", local)

    def has_mailbox(self, user: User) -> bool:
        return user.ext in self.locals


def _verdict(here: _Here, address: bytes) -> Verdict:
    return exists(RULES, address, here.find, here.has_mailbox).verdict


def test_local_addresses_are_looked_up() -> None:
    """A local address exists if its user has a mailbox for it."""
    here = _Here(b"ann", b"virt-x")
    assert _verdict(here, b"ann@me.example") is Verdict.YES
    assert _verdict(here, b"ann") is Verdict.YES
    assert _verdict(here, b"bob@me.example") is Verdict.NO
    assert _verdict(here, b"x@v.example") is Verdict.YES
    assert _verdict(here, b"y@v.example") is Verdict.NO
    assert here.asked == [b"ann", b"ann", b"bob", b"virt-x", b"virt-y"]


def test_remote_addresses_are_not_ours_to_judge() -> None:
    """A remote address exists, and nobody is asked."""
    here = _Here()
    assert _verdict(here, b"x@elsewhere.example") is Verdict.YES
    assert not here.asked


@pytest.mark.parametrize("address", [b"@me.example", b"", b"x" * 1001 + b"@me.example"])
def test_addresses_of_nobody(address: bytes) -> None:
    """An address without a local part, or longer than any, does not exist."""
    assert _verdict(_Here(b""), address) is Verdict.NO


def test_trouble_is_passed_on() -> None:
    """What cannot be told now is not no."""

    def trouble(local: bytes) -> User:
        raise Temporary("later")

    with pytest.raises(Temporary):
        exists(RULES, b"ann", trouble, _Here().has_mailbox)


@given(st.binary(max_size=100))
def test_any_address(address: bytes) -> None:
    """Any bytes get a verdict, and no text but for a refusal."""
    verdict, text = exists(RULES, address, _Here().find, _Here().has_mailbox)
    assert bool(text) == (verdict is Verdict.NO)


def test_accounts_that_may_log_in() -> None:
    """An account with a password that is in use."""
    assert of_account(ACCOUNT, SHADOW, DAY) == ENTRY
    assert of_account(ACCOUNT, SHADOW._replace(expires_day=DAY + 1), DAY) == ENTRY
    assert of_account(ACCOUNT, SHADOW._replace(days_max=50, days_inactive=50), DAY) == ENTRY
    assert of_account(ACCOUNT, SHADOW._replace(days_max=1), DAY) == ENTRY, "an old password still lets in"


@pytest.mark.parametrize(
    ("account", "shadow"),
    [
        (ACCOUNT._replace(uid=0), SHADOW),
        (ACCOUNT, SHADOW._replace(hash=b"")),
        (ACCOUNT, SHADOW._replace(hash=b"*")),
        (ACCOUNT, SHADOW._replace(hash=b"!$6$salt$hash")),
        (ACCOUNT, SHADOW._replace(expires_day=DAY)),
        (ACCOUNT, SHADOW._replace(expires_day=0)),
        (ACCOUNT, SHADOW._replace(days_max=50, days_inactive=49)),
    ],
)
def test_accounts_that_may_not(account: Account, shadow: Shadow) -> None:
    """Root, no password, a locked one, and an account that is over (shadow(5)) do not log in."""
    assert of_account(account, shadow, DAY) is None


def test_apop() -> None:
    """The example of RFC 1939 section 7, in either case, and nothing near it."""
    banner = b"<1896.697170952@dbc.mtview.ca.us>"
    right = b"c4c9334bac560ecc979e58001b3e22fb"
    assert digest(PLAIN, Method.APOP, right, banner)
    assert digest(PLAIN, Method.APOP, right.upper(), banner)
    for wrong in (b"", right[:-1], right + b"0", b"0" * 32, b"tanstaaf", b"\xff" * 32):
        assert not digest(PLAIN, Method.APOP, wrong, banner)
    assert not digest(PLAIN, Method.APOP, right, banner + b" ")
    assert not digest(PLAIN, Method.CRAM_MD5, right, banner)


def test_cram_md5() -> None:
    """The example of RFC 2195 section 2."""
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    tim = ENTRY._replace(secrets=Secrets(b"{PLAIN}tanstaaftanstaaf"))
    right = b"b913a602c7eda7a495b4e6e7334d3890"
    assert digest(tim, Method.CRAM_MD5, right, challenge)
    assert not digest(tim, Method.CRAM_MD5, right, challenge + b" ")
    assert not digest(tim, Method.APOP, right, challenge)


def test_apop_needs_the_password_itself() -> None:
    """Nobody, and nobody with a hashed password, answers a challenge; not even with the digest of nothing."""
    nothing = md5(b"<c>", usedforsecurity=False).hexdigest().encode()
    hashed = md5(b"<c>" + ENTRY.secrets.hash, usedforsecurity=False).hexdigest().encode()
    for given_ in (nothing, hashed, hmac.digest(b"", b"<c>", "md5").hex().encode()):
        for method in (Method.APOP, Method.CRAM_MD5):
            assert not digest(None, method, given_, b"<c>")
            assert not digest(ENTRY, method, given_, b"<c>")


def test_remembered_logins() -> None:
    """A login is known for its time, with its password, as long as its entry is what it was."""
    remembered = Remembered(b"k" * 32)
    tag = remembered.tag(ENTRY, b"secret")
    assert not remembered.knows(tag, 100.0)
    remembered.add(tag, 160.0)
    assert remembered.knows(remembered.tag(ENTRY, b"secret"), 159.9)
    assert not remembered.knows(tag, 160.0)
    others = [
        remembered.tag(ENTRY, b"Secret"),
        remembered.tag(ENTRY, b""),
        remembered.tag(ENTRY._replace(secrets=Secrets(b"$6$salt$other")), b"secret"),
        remembered.tag(ENTRY._replace(login=LOGIN._replace(uid=5)), b"secret"),
        remembered.tag(ENTRY._replace(login=LOGIN._replace(home=b"/other")), b"secret"),
        Remembered(b"K" * 32).tag(ENTRY, b"secret"),
        b"",
    ]
    assert not any(remembered.knows(other, 100.0) for other in others)
    remembered.forget()
    assert not remembered.knows(tag, 100.0)


def test_no_secret_is_remembered() -> None:
    """What is kept does not hold the password."""
    remembered = Remembered(b"k" * 32)
    remembered.add(remembered.tag(ENTRY, b"hunter2hunter2"), 1.0)
    assert b"hunter2" not in repr(vars(remembered)).encode()


def test_memory_of_logins_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the login that was verified first is forgotten."""
    monkeypatch.setattr(policy, "LOGINS_MAX", 3)
    remembered = Remembered(b"k" * 32)
    for name in (b"a", b"b", b"c", b"a", b"d"):
        remembered.add(name, 10.0)
    assert {name for name in (b"a", b"b", b"c", b"d") if remembered.knows(name, 1.0)} == {b"a", b"c", b"d"}


def test_the_answers_are_what_clients_read() -> None:
    """No has a text for the peer; yes has none."""
    assert exists(RULES, b"x@y", _Here().find, _Here().has_mailbox) == Exists(Verdict.YES, b"")
