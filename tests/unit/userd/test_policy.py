"""What userd decides."""

import hmac
from base64 import b64encode
from hashlib import md5, pbkdf2_hmac, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Temporary
from qm.unix.accounts import Account, Shadow
from qm.userd import policy
from qm.userd.policy import Kind, Remembered, digest, exists, of_account, proven
from qm.wire import scram
from qm.wire.assign import User
from qm.wire.passwdfile import Entry
from qm.wire.record import Malformed
from qm.wire.route import Rules
from qm.wire.storedsecret import Secrets
from qm.wire.userquery import AskSender, Exists, Login, Method, Verdict

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


# SCRAM

VERIFIER = scram.verifier(b"pencil", b"salt", 4096)
APP = scram.verifier(b"k3vd-9tqa-xw2m-hh7p-c4fz-r6ju", b"salt", 4096)
SCRAM = ENTRY._replace(secrets=Secrets(b"$6$x$y", VERIFIER, ((b"phone", APP),)))


def proof(password: bytes, message: bytes) -> bytes:
    """What a client that knows *password* sends."""
    client_key = hmac.digest(pbkdf2_hmac("sha256", password, b"salt", 4096), b"Client Key", "sha256")
    signature = hmac.digest(sha256(client_key).digest(), message, "sha256")
    return b64encode(bytes(one ^ other for one, other in zip(client_key, signature, strict=True)))


def test_any_password_of_a_name_proves_itself() -> None:
    """The password and each app password; the signature is that password's, so the client believes it."""
    for password, verifier in ((b"pencil", VERIFIER), (b"k3vd-9tqa-xw2m-hh7p-c4fz-r6ju", APP)):
        signature = scram.signature(verifier.server_key, b"message")
        assert proven(SCRAM, proof(password, b"message"), b"message") == signature
    for entry in (None, ENTRY, SCRAM):
        for wrong in (proof(b"pencils", b"message"), proof(b"pencil", b"other"), b"", b"AAAA", b"\xff", b"A" * 44):
            assert proven(entry, wrong, b"message") == b""


def test_salts() -> None:
    """A name that nobody has, and one without a verifier, have a salt that stays what it is; one with has its own."""
    assert policy.salt(SCRAM, b"key", b"ann") == (b"salt", 4096)
    assert policy.salt(None, b"key", b"ann") == policy.salt(ENTRY, b"key", b"ann")
    assert policy.salt(None, b"key", b"ann") != policy.salt(None, b"key", b"bob")
    assert policy.salt(None, b"key", b"ann")[1] == scram.ITERATIONS


# which mechanisms


def test_mechanisms_that_serve_every_login() -> None:
    """Without a wish only what each login could use is offered: an account has no verifier."""
    some = frozenset((b"PLAIN", b"LOGIN", b"SCRAM-SHA-256", b"CRAM-MD5", b"EXTERNAL"))
    every = some - {b"CRAM-MD5"}
    assert policy.mechanisms((Kind.PASSWD,), some, every, ()) == (b"EXTERNAL", b"LOGIN", b"PLAIN", b"SCRAM-SHA-256")
    assert policy.mechanisms((Kind.PASSWD, Kind.SYSTEM), some, every, ()) == (b"EXTERNAL", b"LOGIN", b"PLAIN")
    assert policy.mechanisms((Kind.SYSTEM,), some, every, ()) == (b"LOGIN", b"PLAIN")


def test_mechanisms_that_are_wished_for() -> None:
    """A wish gets what serves some login, and nothing that serves none."""
    some = frozenset((b"PLAIN", b"CRAM-MD5"))
    wanted = (b"cram-md5", b"SCRAM-SHA-256")
    assert policy.mechanisms((Kind.PASSWD, Kind.SYSTEM), some, frozenset(), wanted) == (b"CRAM-MD5",)
    assert policy.mechanisms((Kind.SYSTEM,), some, frozenset(), wanted) == ()


@pytest.mark.parametrize(
    "line",
    [b"pam x", b"passwd x", b"PASSWD", b"system y", b"program", b"oauthbearer", b"program checkpassword true"],
)
def test_lines_that_are_no_backend(line: bytes) -> None:
    """A word that is none of ours, and arguments where none belong, are refused."""
    with pytest.raises(Malformed):
        policy.backends([line])


# who may write from which address

SENDERS = policy.senders([b"ann:sales@me.example", b"Ann: @Shop.example", b"relay:*"])


ANN = LOGIN._replace(name=b"ann")


def may_send(address: bytes, here: _Here, login: Login = ANN) -> Verdict:
    def find(local: bytes) -> User:
        who, _, ext = local.partition(b"-")
        return User(who, 1001 if who == b"ann" else 1003, 1002, b"/home/" + who, b"-" if ext else b"", ext or who)

    question = AskSender(login.name, login.uid, login.home, address)
    return policy.may_send(RULES, SENDERS, question, find, here.has_mailbox).verdict


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        (b"ann@me.example", Verdict.YES),
        (b"Ann@ME.example", Verdict.NO),  # users/assign decides about case; this directory has none
        (b"ann-list@me.example", Verdict.YES),
        (b"ann-nolist@me.example", Verdict.NO),
        (b"bob@me.example", Verdict.NO),
        (b"SALES@me.example", Verdict.YES),
        (b"any@shop.EXAMPLE", Verdict.YES),
        (b"any@sub.shop.example", Verdict.NO),
        (b"any@notshop.example", Verdict.NO),
        (b"ann@elsewhere.example", Verdict.NO),
        (b"ann", Verdict.YES),
        (b"", Verdict.YES),
        (b"@me.example", Verdict.NO),
        (b"x" * 2000 + b"@me.example", Verdict.NO),
    ],
)
def test_senders(address: bytes, verdict: Verdict) -> None:
    """An address is the login's if mail for it is, or by control/authsenders; the null sender is everybody's."""
    assert may_send(address, _Here(b"ann", b"bob", b"list")) is verdict


def test_whose_home_it_is() -> None:
    """Virtual users share a uid: the home tells them apart."""
    here = _Here(b"ann", b"bob")
    assert may_send(b"bob@me.example", here, Login(b"x", 1003, 1002, b"/home/bob/", b"", b"bob@v")) is Verdict.YES
    assert may_send(b"bob@me.example", here, Login(b"x", 1003, 1002, b"/home/carl", b"", b"carl@v")) is Verdict.NO
    assert may_send(b"carl@v", here, Login(b"x", 1003, 1002, b"/home/carl", b"", b"carl@v")) is Verdict.YES
    assert may_send(b"who@ever.example", here, LOGIN._replace(name=b"relay")) is Verdict.YES


@pytest.mark.parametrize("line", [b"ann", b"ann:", b":a@b", b"ann:b"])
def test_lines_of_authsenders(line: bytes) -> None:
    """A line without a login, or without an address, is refused."""
    with pytest.raises(Malformed):
        policy.senders([line])
