"""SASL's client: each mechanism against our own server, the RFCs' examples, and servers that cheat."""

import hmac
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import saslclient, scram
from qm.wire.sasl import AskLogin, AskScram, Challenge, Done, Peer
from qm.wire.sasl import Exchange as Server
from qm.wire.saslclient import BINDING, Channel, Exchange, Failed, choose
from qm.wire.smtpauth import Login as Account
from qm.wire.userquery import Login, LoginAnswer, Method, Refused, Scram, ScramAnswer

PENCIL = Account(b"user", b"pencil")
BOUND = {BINDING: b"a certificate's hash"}
NONCE = b"rOprNGfwEbeRWgbNEkqO"
VERIFIER = scram.verifier(b"pencil", b"0123456789abcdef", 4096)


@pytest.mark.parametrize(
    ("offered", "bindings", "readable", "want"),
    [
        ((b"PLAIN", b"CRAM-MD5", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"), BOUND, True, b"SCRAM-SHA-256-PLUS"),
        ((b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"), {}, True, b"SCRAM-SHA-256"),
        ((b"LOGIN", b"PLAIN", b"CRAM-MD5"), BOUND, True, b"CRAM-MD5"),
        ((b"LOGIN", b"PLAIN"), {}, True, b"PLAIN"),
        ((b"LOGIN",), {}, True, b"LOGIN"),
        ((b"LOGIN", b"PLAIN"), {}, False, None),
        ((b"XOAUTH2", b"GSSAPI"), BOUND, True, None),
        ((), {}, True, None),
    ],
)
def test_the_best_is_chosen(
    offered: tuple[bytes, ...], bindings: dict[bytes, bytes], readable: bool, want: bytes | None
) -> None:
    """The strongest that both have; no password where it can be read."""
    assert choose(Channel(offered, bindings), readable=readable) == want


def _judge(question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
    """What userd would say."""
    ok = Login(b"user", 1, 1, b"/", b"", b"user", b"")
    if isinstance(question, AskScram):
        return Scram(b64encode(VERIFIER.salt), VERIFIER.iterations)
    if question.method is Method.PASSWORD:
        return ok if question.secret == b"pencil" else Refused(b"no")
    if question.method is Method.CRAM_MD5:
        good = hmac.digest(b"pencil", question.challenge, "md5").hex().encode() == question.secret
        return ok if good else Refused(b"no")
    good = scram.proves(VERIFIER.stored_key, question.challenge, b64decode(question.secret))
    return ok._replace(signature=scram.signature(VERIFIER.server_key, question.challenge)) if good else Refused(b"no")


@pytest.mark.parametrize("mechanism", saslclient._MECHANISMS)
@pytest.mark.parametrize("password", [b"pencil", b"guess"])
def test_against_our_own_server(mechanism: bytes, password: bytes) -> None:
    """Each mechanism gets in with the right password, and not with a wrong one."""
    peer = Peer(b"192.0.2.1", b"mx.example", b"0123456789abcdef", (mechanism,), BOUND)
    server = Server(mechanism, peer)
    client = Exchange(mechanism, Account(b"user", password), Channel((mechanism,), BOUND), NONCE)
    step = server.receive(None if client.initial is None else b64encode(client.initial))
    while not isinstance(step, Done):
        if isinstance(step, Challenge):
            step = server.receive(client.respond(step.line))
        elif isinstance(step, AskLogin | AskScram):
            step = server.answered(_judge(step))
        else:
            break
    assert (isinstance(step, Done), client.over) == ((True, True) if password == b"pencil" else (False, client.over))


def test_rfc_7677() -> None:
    """The RFC's example, to the letter."""
    client = Exchange(b"SCRAM-SHA-256", PENCIL, Channel((b"SCRAM-SHA-256",)), NONCE)
    assert client.initial == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert b64decode(client.respond(b64encode(first))) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert not client.over
    assert client.respond(b64encode(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")) == b""
    assert client.over


def test_rfc_2195() -> None:
    """The RFC's example."""
    client = Exchange(b"CRAM-MD5", Account(b"tim", b"tanstaaftanstaaf"), Channel(()), NONCE)
    said = client.respond(b64encode(b"<1896.697170952@postoffice.reston.mci.net>"))
    assert b64decode(said) == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_rfc_4616() -> None:
    """The RFC's example."""
    assert Exchange(b"PLAIN", Account(b"tim", b"tanstaaftanstaaf"), Channel(()), NONCE).initial == (
        b"\0tim\0tanstaaftanstaaf"
    )


def test_who_takes_plus_away_is_told() -> None:
    """A client that could bind says so, and the real server then knows that its offer of -PLUS was taken away."""
    client = Exchange(b"SCRAM-SHA-256", PENCIL, Channel((b"SCRAM-SHA-256",), BOUND), NONCE)
    assert client.initial and client.initial.startswith(b"y,,n=")


GOOD = b"r=%bx,s=c2FsdHNhbHQ=,i=4096" % NONCE
BAD_FIRST = {
    b"": "bad challenge",
    b"e=other-error": "bad challenge",
    b"m=x," + GOOD: "bad challenge",
    GOOD.replace(b"x,", b","): "somebody else's",
    GOOD.replace(b"r=r", b"r=x"): "somebody else's",
    GOOD.replace(b"4096", b"4095"): "fewer than 4096",
    GOOD.replace(b"4096", b"1000001"): "more than 1000000",
    GOOD.replace(b"4096", b"99999999999"): "bad challenge",
    GOOD.replace(b"c2FsdHNhbHQ=", b"===="): "bad challenge",
    GOOD.replace(b"c2FsdHNhbHQ=", b64encode(b"x" * 65)): "iterations",
}


@pytest.mark.parametrize("first", BAD_FIRST)
def test_bad_first_messages(first: bytes) -> None:
    """What a server must not say ends the exchange, before anything is worked out from the password."""
    client = Exchange(b"SCRAM-SHA-256", PENCIL, Channel(()), NONCE)
    with pytest.raises(Failed, match=BAD_FIRST[first]):
        client.respond(b64encode(first))


@pytest.mark.parametrize("final", [b"", b"v=", b"v=AAAA", b"e=invalid-proof", b"v=" + b64encode(b"x" * 32)])
def test_a_server_that_does_not_know_the_password(final: bytes) -> None:
    """A signature that is not the right one is seen."""
    client = Exchange(b"SCRAM-SHA-256", PENCIL, Channel(()), NONCE)
    client.respond(b64encode(GOOD))
    with pytest.raises(Failed, match="prove"):
        client.respond(b64encode(final))
    assert not client.over


@pytest.mark.parametrize("mechanism", saslclient._MECHANISMS)
@given(challenges=st.lists(st.binary(max_size=30) | st.sampled_from([b64encode(GOOD), b"", b"=", b"*"]), min_size=9))
def test_any_challenges_come_to_an_end(mechanism: bytes, challenges: list[bytes]) -> None:
    """Whatever is asked, and however often, ends in Failed after a few steps."""
    client = Exchange(mechanism, PENCIL, Channel((), BOUND), NONCE)
    with pytest.raises(Failed):
        for challenge in challenges:
            client.respond(challenge)


def test_a_challenge_has_a_limit() -> None:
    """A challenge of more bytes than any has is not read."""
    client = Exchange(b"CRAM-MD5", PENCIL, Channel(()), NONCE)
    with pytest.raises(Failed, match="more than 4096 bytes"):
        client.respond(b"A" * 4100)


def test_proof_is_what_a_verifier_wants() -> None:
    """scram.proof and scram.proves are two halves of one thing."""
    proof, signature = scram.proof(b"pencil", VERIFIER.salt, VERIFIER.iterations, b"message")
    assert scram.proves(VERIFIER.stored_key, b"message", b64decode(proof))
    assert signature == scram.signature(VERIFIER.server_key, b"message")
    salted = pbkdf2_hmac("sha256", b"pencil", VERIFIER.salt, VERIFIER.iterations)
    assert sha256(hmac.digest(salted, b"Client Key", "sha256")).digest() == VERIFIER.stored_key
