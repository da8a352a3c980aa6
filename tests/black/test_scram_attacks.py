"""Attacks on SCRAM and CRAM-MD5: a proof that was overheard, a nonce of the attacker's choice, -PLUS taken away."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator

import pytest

from qm.disk import passwd
from qm.unix.userclient import UserClient
from qm.wire.sasl import Challenge, Fault, mechanisms
from qm.wire.userquery import AskLogin, AskScram, Login, Method, Refused, Scram
from tests.harness.barehome import bare_home, running
from tests.harness.saslclient import BOUND, Sasl, fault, name_of, scram_login


@pytest.fixture
def ask() -> Iterator[UserClient]:
    """A userd whose ann can log in by everything."""
    with bare_home(None) as home:
        home.control("logins", "passwd\n")
        home.control("authfaildelay", "0\n")
        login = Login(b"ann", home.mailbox_uid, home.mailbox_uid, b"home/ann", b"/bin/sh")
        passwd.put(b"ann", b"pencil", login, apop=True, directory=str(home.folder / "users"))
        with running(home, "qm-userd"), UserClient(str(home.folder / "users/socket"), 20.0) as ask:
            yield ask


def test_a_proof_is_good_once(ask: UserClient) -> None:
    """What was overheard of one exchange is nothing in the next, whose nonce is another."""
    heard = Sasl(ask, b"SCRAM-SHA-256")
    assert name_of(scram_login(heard, b"pencil")) == b"ann"
    (asked,) = heard.asked
    replay = Sasl(ask, b"SCRAM-SHA-256")
    step = replay.say(b"n,,n=ann,r=clientnonce")
    assert isinstance(step, Challenge)
    nonce = b64decode(step.line).split(b",")[0]
    old_final = asked.challenge.rpartition(b",c=")[2]
    assert fault(replay.say(b"c=" + old_final + b",p=" + asked.secret)) is Fault.WRONG, "the old nonce"
    assert not replay.asked
    replay = Sasl(ask, b"SCRAM-SHA-256")
    step = replay.say(b"n,,n=ann,r=clientnonce")
    assert isinstance(step, Challenge)
    assert b64decode(step.line).split(b",")[0] != nonce, "we never use a nonce twice"
    nonce = b64decode(step.line).split(b",")[0]
    assert fault(replay.say(b"c=biws," + nonce + b",p=" + asked.secret)) is Fault.WRONG, "the new nonce, the old proof"


def test_a_cram_digest_is_good_once(ask: UserClient) -> None:
    """A digest answers one challenge."""
    first, second = Sasl(ask, b"CRAM-MD5"), Sasl(ask, b"CRAM-MD5")
    step, other = first.say(None), second.say(None)
    assert isinstance(step, Challenge)
    assert step != other
    digest = hmac.digest(b"pencil", b64decode(step.line), "md5").hex().encode()
    assert name_of(first.say(b"ann " + digest)) == b"ann"
    assert fault(second.say(b"ann " + digest)) is Fault.WRONG


def test_a_nonce_that_pretends_to_be_ours(ask: UserClient) -> None:
    """A final message with the client's own nonce alone, or with more behind ours, proves nothing."""
    for change in (lambda nonce: b"clientnonce", lambda nonce: nonce + b"x", lambda nonce: nonce[:-1]):
        sasl = Sasl(ask, b"SCRAM-SHA-256")
        step = sasl.say(b"n,,n=ann,r=clientnonce")
        assert isinstance(step, Challenge)
        nonce = change(b64decode(step.line).split(b",")[0][2:])
        assert fault(sasl.say(b"c=biws,r=" + nonce + b",p=" + b64encode(bytes(32)))) is Fault.WRONG
        assert not sasl.asked


def test_plus_taken_off_the_offer(ask: UserClient) -> None:
    """A client that could bind channels and was told that we cannot is warned by us (RFC 5802 section 6)."""
    assert b"SCRAM-SHA-256-PLUS" in mechanisms(
        ask.mechanisms(), encrypted=True, clear=False, bindings=BOUND, client=b""
    )
    step = Sasl(ask, b"SCRAM-SHA-256").say(b"y,,n=ann,r=clientnonce")
    assert fault(step) is Fault.WRONG


def test_a_binding_that_was_passed_on(ask: UserClient) -> None:
    """Somebody in the middle, with a certificate of his own, cannot pass the client's proof on to us."""
    header = b"p=tls-server-end-point,,"
    sasl = Sasl(ask, b"SCRAM-SHA-256-PLUS")
    assert fault(scram_login(sasl, b"pencil", header=header, binding=b"his certificate's hash")) is Fault.WRONG
    assert not sasl.asked, "userd never sees the proof"


def test_what_is_stored_is_no_password(ask: UserClient) -> None:
    """A proof, a digest or a verifier given as a password opens nothing, also just after it was right."""
    sasl = Sasl(ask, b"SCRAM-SHA-256")
    assert name_of(scram_login(sasl, b"pencil")) == b"ann"
    (asked,) = sasl.asked
    for secret in (asked.secret, b64decode(asked.secret).replace(b"\0", b"?"), b"{PLAIN}pencil"):
        answer = ask.answer(AskLogin(Method.PASSWORD, b"ann", secret, b"", b"203.0.113.5"))
        assert isinstance(answer, Refused)


def test_nul_and_long_fields(ask: UserClient) -> None:
    """Fields with a NUL, or longer than any, are refused; userd goes on."""
    for field in (b"a\0b", b"x" * 100_000):
        for question in (
            AskLogin(Method.PASSWORD, field, b"pencil", b"", b""),
            AskLogin(Method.PASSWORD, b"ann", field, b"", b""),
            AskLogin(Method.SCRAM_SHA_256, b"ann", b"A" * 43 + b"=", field, b""),
        ):
            assert isinstance(ask.answer(question), Refused)
        assert isinstance(ask.answer(AskScram(field)), Scram)
        assert isinstance(ask.answer(AskLogin(Method.PASSWORD, b"ann", b"pencil", b"", field)), Login)
