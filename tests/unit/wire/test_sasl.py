"""SASL exchanges: the RFCs' own examples, every way to go wrong, any bytes."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import md5, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import scram
from qm.wire.sasl import LINE_MAX, Challenge, Done, Exchange, Fault, Peer, Refusal, Step, mechanisms
from qm.wire.userquery import AskLogin, AskScram, Later, Login, LoginAnswer, Method, Refused, Scram

ALL = (b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256", b"OAUTHBEARER", b"EXTERNAL", b"CRAM-MD5", b"PLAIN", b"LOGIN")
NONCE = b"0123456789abcdef"
BOUND = {b"tls-server-end-point": b"hash of the certificate", b"tls-exporter": b"exported"}
PEER = Peer(b"192.0.2.1", b"mx.example", NONCE, ALL, BOUND)
ANN = Login(b"ann", 1001, 1002, b"/home/ann", b"/bin/sh", b"ann")
SALT = b"W22ZaJ0SNY7soEsUEjb6gQ=="


def run(exchange: Exchange, *lines: bytes | None, answer: LoginAnswer = ANN) -> list[Step]:
    """What the exchange says to the client's lines (not in base64), when userd answers *answer*."""
    steps: list[Step] = []
    for line in lines:
        step = exchange.receive(line if line in (None, b"*", b"=") else b64encode(line))  # type: ignore[arg-type]
        steps.append(step)
        while isinstance(step, AskLogin | AskScram):
            step = exchange.answered(Scram(SALT, 4096) if isinstance(step, AskScram) else answer)
            steps.append(step)
    return steps


def last(mechanism: bytes, *lines: bytes | None, peer: Peer = PEER, answer: LoginAnswer = ANN) -> Step:
    return run(Exchange(mechanism, peer), *lines, answer=answer)[-1]


def fault(step: Step) -> Fault:
    assert isinstance(step, Refusal), step
    return step.fault


# PLAIN, RFC 4616


@pytest.mark.parametrize("lines", [(b"\0tim\0tanstaaftanstaaf",), (None, b"\0tim\0tanstaaftanstaaf")])
def test_plain(lines: tuple[bytes | None, ...]) -> None:
    """The first example of RFC 4616 section 4, with and without an initial response."""
    steps = run(Exchange(b"plain", PEER), *lines)
    assert steps[-2:] == [AskLogin(Method.PASSWORD, b"tim", b"tanstaaftanstaaf", b"", b"192.0.2.1"), Done(ANN)]
    if len(lines) == 2:
        assert steps[0] == Challenge(b"")


def test_plain_for_another() -> None:
    """The second example of RFC 4616 is refused: Kurt does not act for Ursel; but he may name himself."""
    assert last(b"PLAIN", b"Ursel\0Kurt\0xipj3plmq") == Refusal(Fault.WRONG, b"may not act for another name")
    assert last(b"PLAIN", b"KURT\0Kurt\0xipj3plmq") == Done(ANN)


def test_names_are_prepared() -> None:
    """A name is prepared (RFC 4013); what cannot be one is refused without a question."""
    steps = run(Exchange(b"PLAIN", PEER), "\0I\u00adX\0pw".encode())
    assert isinstance(steps[0], AskLogin)
    assert steps[0].name == b"IX"
    for name in (b"", b"\xff", b"a\nb", b"\x07", "\u06271".encode()):
        assert fault(last(b"PLAIN", b"\0" + name + b"\0pw")) is Fault.WRONG


@pytest.mark.parametrize("message", [b"", b"tim", b"\0tim", b"\0tim\0a\0b", b"\0\0\0\0", b"\0" * 9000])
def test_what_is_not_plain(message: bytes) -> None:
    """Too few fields and too many, as with a NUL in the password, are no PLAIN."""
    assert fault(last(b"PLAIN", None, message)) is Fault.MALFORMED


def test_no_password_is_no_question() -> None:
    """An empty password never gets to a store, where it might be a bind without a name."""
    assert fault(last(b"PLAIN", b"\0ann\0")) is Fault.WRONG
    assert fault(last(b"LOGIN", b"ann", b"")) is Fault.WRONG
    assert fault(last(b"LOGIN", b"ann", b"a\0b")) is Fault.WRONG


def test_a_long_password_is_asked_for() -> None:
    """That a password is too long is userd's to say, in its own time."""
    assert last(b"PLAIN", b"\0ann\0" + b"x" * 9000, answer=Refused(b"no")) == Refusal(Fault.WRONG, b"no")


# LOGIN


@pytest.mark.parametrize("lines", [(b"tim",), (None, b"tim"), (b"=", b"tim")])
def test_login(lines: tuple[bytes | None, ...]) -> None:
    """Name and password are asked for; a client may give the name at once."""
    steps = run(Exchange(b"LOGIN", PEER), *lines, b"secret")
    asked = [b64decode(step.line) for step in steps if isinstance(step, Challenge)]
    assert asked == [b"Username:", b"Password:"][2 - len(asked) :]
    assert steps[-2:] == [AskLogin(Method.PASSWORD, b"tim", b"secret", b"", b"192.0.2.1"), Done(ANN)]


# CRAM-MD5, RFC 2195


def test_cram_md5() -> None:
    """RFC 2195 section 2: a challenge like a Message-ID, a name and a digest; each challenge is its own."""
    exchange = Exchange(b"CRAM-MD5", PEER)
    challenge = exchange.receive(None)
    assert challenge == Challenge(b64encode(b"<0123456789abcdef@mx.example>"))
    digest = hmac.digest(b"tanstaaftanstaaf", b"<0123456789abcdef@mx.example>", "md5").hex().encode()
    step = exchange.receive(b64encode(b"tim " + digest))
    assert step == AskLogin(Method.CRAM_MD5, b"tim", digest, b"<0123456789abcdef@mx.example>", b"192.0.2.1")
    assert exchange.answered(ANN) == Done(ANN)


@pytest.mark.parametrize("response", [b"", b"tim", b"tim ", b"tim " + b"x" * 32, b"a " + b"A" * 32, b"a " + b"0" * 33])
def test_what_is_not_cram_md5(response: bytes) -> None:
    """A response is a name, a blank and 32 small hexadecimal digits."""
    assert fault(last(b"CRAM-MD5", None, response)) is Fault.MALFORMED


def test_cram_md5_has_no_initial_response() -> None:
    """The server begins (RFC 4954 section 4): an initial response is an error."""
    assert fault(last(b"CRAM-MD5", b"tim 0")) is Fault.MALFORMED


# SCRAM, RFC 5802 and 7677

FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"


def scram_client(
    exchange: Exchange, first: bytes, binding: bytes = b"", password: bytes = b"pencil", **changed: bytes
) -> list[Step]:
    """A client that does all right but what is *changed*."""
    steps = run(exchange, first)
    assert isinstance(steps[-1], Challenge), steps
    server_first = b64decode(steps[-1].line)
    bare = first.split(b",", 2)[2]
    nonce = server_first.split(b",")[0][2:]
    header = first[: -len(bare)]
    channel = changed.get("channel", b64encode(header + binding))
    final = b"c=%b,r=%b" % (channel, changed.get("nonce", nonce))
    message = b",".join((bare, server_first, final))
    salted = scram.pbkdf2_hmac("sha256", password, b64decode(SALT), 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(sha256(client_key).digest(), message, "sha256")
    proof = b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
    return steps + run(exchange, final + b",p=" + changed.get("proof", proof), answer=_judge(message, proof))


def _judge(message: bytes, proof: bytes) -> LoginAnswer:
    verifier = scram.verifier(b"pencil", b64decode(SALT), 4096)
    right = scram.proves(verifier.stored_key, message, b64decode(proof))
    return ANN._replace(signature=scram.signature(verifier.server_key, message)) if right else Refused(b"wrong")


def test_scram() -> None:
    """A right proof gets our signature, and the login when the client is content with it."""
    exchange = Exchange(b"SCRAM-SHA-256", PEER)
    steps = scram_client(exchange, FIRST)
    assert steps[0] == AskScram(b"user")
    assert steps[1] == Challenge(b64encode(b"r=rOprNGfwEbeRWgbNEkqO" + NONCE + b",s=" + SALT + b",i=4096"))
    assert isinstance(steps[2], AskLogin)
    assert (steps[2].method, steps[2].name) == (Method.SCRAM_SHA_256, b"user")
    assert isinstance(steps[3], Challenge)
    assert b64decode(steps[3].line).startswith(b"v=")
    end = exchange.receive(b"")
    assert isinstance(end, Done)
    assert end.login.name == b"ann"


def test_the_example_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7677 section 3, to the letter; its nonce has characters that ours never have."""
    monkeypatch.setattr("qm.wire.sasl.NONCE_MIN", 0)
    peer = PEER._replace(nonce=b"x")
    exchange = Exchange(b"SCRAM-SHA-256", peer)
    exchange._peer = peer._replace(nonce=b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert run(exchange, FIRST)[-1] == Challenge(
        b64encode(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    )
    step = exchange.receive(
        b64encode(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
    )
    assert isinstance(step, AskLogin)
    verifier = scram.verifier(b"pencil", b64decode(SALT), 4096)
    assert scram.proves(verifier.stored_key, step.challenge, b64decode(step.secret))
    said = exchange.answered(ANN._replace(signature=scram.signature(verifier.server_key, step.challenge)))
    assert said == Challenge(b64encode(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))


@pytest.mark.parametrize("binding", BOUND)
def test_scram_plus(binding: bytes) -> None:
    """With -PLUS the client proves that it sees the channel that we see, by each type of binding that we have."""
    first = b"p=" + binding + b",,n=user,r=abc"
    assert isinstance(scram_client(Exchange(b"SCRAM-SHA-256-PLUS", PEER), first, BOUND[binding])[-1], Challenge)
    steps = scram_client(Exchange(b"SCRAM-SHA-256-PLUS", PEER), first, b"another certificate")
    assert fault(steps[-1]) is Fault.WRONG
    assert not any(isinstance(step, AskLogin) for step in steps)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"nonce": b"abc" + b"f" * 16}, Fault.WRONG),
        ({"nonce": b"abc"}, Fault.WRONG),
        ({"channel": b64encode(b"y,,")}, Fault.WRONG),
        ({"channel": b64encode(b"n,a=root,")}, Fault.WRONG),
        ({"proof": b"AAAA"}, Fault.MALFORMED),
        ({"proof": b"A"}, Fault.MALFORMED),
        ({"proof": b"A" * 43 + b"=,x=y"}, Fault.MALFORMED),
    ],
)
def test_scram_final_messages(changed: Mapping[str, bytes], expected: Fault) -> None:
    """Another nonce, another header than at first, a proof of another length: refused, and userd is not asked."""
    steps = scram_client(Exchange(b"SCRAM-SHA-256", PEER), b"n,,n=user,r=abc", **changed)
    assert fault(steps[-1]) is expected
    assert not any(isinstance(step, AskLogin) for step in steps)


def test_scram_with_a_wrong_password() -> None:
    """A wrong proof is refused with what userd says; no signature goes out."""
    steps = scram_client(Exchange(b"SCRAM-SHA-256", PEER), FIRST, password=b"pencils")
    assert steps[-1] == Refusal(Fault.WRONG, b"wrong")
    assert len([step for step in steps if isinstance(step, Challenge)]) == 1


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n=user,r=abc",
        b"n,n=user,r=abc",
        b"x,,n=user,r=abc",
        b"p=,,n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
        b"n,,m=ext,n=user,r=abc",
        b"n,,r=abc,n=user",
        b"n,,n=user,r=",
        b"n,,n=user,r=a b",
        b"n,,n=user,r=abc,",
        b"n,,n=user,r=abc,1=x",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2c,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=user,r=" + b"x" * 513,
        b"n,,n=" + b"u" * 5000 + b",r=abc",
    ],
)
def test_what_is_no_first_message(first: bytes) -> None:
    """A first message that RFC 5802 section 7 does not have, or is out of proportion, ends the exchange."""
    assert fault(last(b"SCRAM-SHA-256", first)) is Fault.MALFORMED


def test_scram_names() -> None:
    """=2C and =3D are comma and equals sign (RFC 5802 section 5.1); extensions at the end are let pass."""
    assert run(Exchange(b"SCRAM-SHA-256", PEER), b"n,,n=a=2Cb=3Dc,r=abc,x=1")[0] == AskScram(b"a,b=c")
    assert run(Exchange(b"SCRAM-SHA-256", PEER), b"n,a=Ann,n=ann,r=abc")[0] == AskScram(b"ann")
    assert fault(last(b"SCRAM-SHA-256", b"n,a=bob,n=ann,r=abc")) is Fault.WRONG


# EXTERNAL, RFC 4422 appendix A


@pytest.mark.parametrize("lines", [(b"=",), (None, b""), (b"Ann@Ex.Example",)])
def test_external(lines: tuple[bytes | None, ...]) -> None:
    """The certificate says who it is; the client may say the same."""
    peer = PEER._replace(client=b"ann@ex.example")
    steps = run(Exchange(b"EXTERNAL", peer), *lines)
    assert steps[-2:] == [AskLogin(Method.EXTERNAL, b"ann@ex.example", b"", b"", b"192.0.2.1"), Done(ANN)]


def test_external_refused() -> None:
    """No certificate, and a name that is not the certificate's."""
    assert fault(last(b"EXTERNAL", b"=")) is Fault.WRONG
    assert fault(last(b"EXTERNAL", b"bob", peer=PEER._replace(client=b"ann"))) is Fault.WRONG
    assert fault(last(b"EXTERNAL", b"ann\0", peer=PEER._replace(client=b"ann"))) is Fault.MALFORMED


# OAUTHBEARER, RFC 7628

TOKEN = b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
BEARER = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer " + TOKEN + b"\x01\x01"


def test_oauthbearer() -> None:
    """The example of RFC 7628 section 4.1."""
    login = ANN._replace(name=b"user@example.com")
    steps = run(Exchange(b"OAUTHBEARER", PEER), BEARER, answer=login)
    assert steps == [AskLogin(Method.OAUTHBEARER, b"user@example.com", TOKEN, b"", b"192.0.2.1"), Done(login)]
    steps = run(Exchange(b"OAUTHBEARER", PEER), BEARER.replace(b"a=user@example.com", b""), answer=login)
    assert steps[-1] == Done(login)


def test_oauthbearer_refused() -> None:
    """A refused token gets the error that RFC 7628 section 3.2.2 asks for, and the client answers before the end."""
    steps = run(Exchange(b"OAUTHBEARER", PEER), BEARER, b"\x01", answer=Refused(b"expired", 2))
    assert isinstance(steps[1], Challenge)
    assert b'"invalid_token"' in b64decode(steps[1].line)
    assert steps[2] == Refusal(Fault.WRONG, b"expired", 2)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,\x01\x01",
        BEARER[:-1],
        BEARER + b"\x01",
        BEARER.replace(b"Bearer", b"Basic"),
        BEARER.replace(TOKEN, b"a b"),
        BEARER.replace(TOKEN, b""),
        BEARER.replace(b"host", b"auth"),
        BEARER.replace(b"port=143", b"port"),
        BEARER.replace(b"n,a", b"p=x,a"),
        BEARER.replace(b"143", b"14\x003"),
    ],
)
def test_what_is_no_bearer(message: bytes) -> None:
    """No header, no pairs, no end, another scheme, a key twice, a channel binding."""
    assert fault(last(b"OAUTHBEARER", None, message)) is Fault.MALFORMED


# the frame


@pytest.mark.parametrize("mechanism", ALL)
def test_cancel(mechanism: bytes) -> None:
    """A * ends every mechanism at every step where the client speaks (RFC 4954 section 4)."""
    peer = PEER._replace(client=b"ann")
    assert fault(last(mechanism, None, b"*", peer=peer)) is Fault.CANCELLED
    assert fault(last(mechanism, b"*", peer=peer)) is Fault.CANCELLED
    exchange = Exchange(b"SCRAM-SHA-256", PEER)
    scram_client(exchange, FIRST)
    assert fault(exchange.receive(b"*")) is Fault.CANCELLED


@pytest.mark.parametrize("line", [b"====", b"a", b"a===", b"YWJj=YWJj", b"YW Jj", b"YWJj\xff", b"=YWJj", b"YWJj=="])
def test_what_is_no_base64(line: bytes) -> None:
    """Base64 is strict: nothing beside the alphabet, and padding where it belongs."""
    exchange = Exchange(b"PLAIN", PEER)
    exchange.receive(None)
    assert exchange.receive(line) == Refusal(Fault.MALFORMED, b"not base64")
    assert Exchange(b"PLAIN", PEER).receive(line) == Refusal(Fault.MALFORMED, b"not base64")


def test_equals_is_for_the_initial_response_only() -> None:
    """= stands for an empty initial response, and for nothing later."""
    exchange = Exchange(b"EXTERNAL", PEER._replace(client=b"ann"))
    exchange.receive(None)
    assert fault(exchange.receive(b"=")) is Fault.MALFORMED


def test_long_lines() -> None:
    """A line beyond RFC 4954's limit ends the exchange."""
    assert fault(Exchange(b"PLAIN", PEER).receive(b"A" * (LINE_MAX + 4))) is Fault.TOO_LONG


@pytest.mark.parametrize("mechanism", [b"", b"NTLM", b"SCRAM-SHA-1", b"PLAIN\0", b"\xff"])
def test_unknown_mechanisms(mechanism: bytes) -> None:
    """What we do not have is not tried."""
    assert fault(last(mechanism, None)) is Fault.UNKNOWN


def test_only_what_was_offered() -> None:
    """What this connection was not offered, as PLAIN in clear, does not start, and no password is read."""
    assert fault(last(b"PLAIN", b"\0ann\0pw", peer=PEER._replace(offered=(b"CRAM-MD5",)))) is Fault.UNKNOWN


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Refused(b"why", 4), Refusal(Fault.WRONG, b"why", 4)),
        (Refused(b"why", 4, True), Refusal(Fault.LOCKED, b"why", 4)),
        (Later(b"why"), Refusal(Fault.LATER, b"why")),
    ],
)
def test_answers(answer: LoginAnswer, expected: Refusal) -> None:
    """Refused, refused unseen, and trouble stay apart."""
    assert last(b"PLAIN", b"\0ann\0pw", answer=answer) == expected


def test_scram_later() -> None:
    """When userd cannot tell the salt, that is trouble and no refusal."""
    exchange = Exchange(b"SCRAM-SHA-256", PEER)
    exchange.receive(b64encode(FIRST))
    assert exchange.answered(Later(b"why")) == Refusal(Fault.LATER, b"why")


def test_a_nonce_is_long() -> None:
    """A caller that forgets the nonce, or gives one that breaks the syntax, is stopped."""
    for nonce in (b"", b"short", b"0123456789abcde,", b"0123456789 bcdef"):
        with pytest.raises(ValueError, match="nonce"):
            Exchange(b"SCRAM-SHA-256", PEER._replace(nonce=nonce))


def test_the_name_is_known_for_the_log() -> None:
    """Who wants to log in is known from the question on."""
    exchange = Exchange(b"PLAIN", PEER)
    assert exchange.name == b""
    exchange.receive(b64encode(b"\0ann\0pw"))
    assert exchange.name == b"ann"


def test_no_secret_in_what_is_printed() -> None:
    """Steps that end up in a message show no secret."""
    for step in run(Exchange(b"PLAIN", PEER), b"\0ann\0hunter2", answer=Refused(b"no")):
        assert "hunter2" not in repr(step)


def test_what_is_offered() -> None:
    """Under TLS all that the store can, the best first; in clear nothing, or by control/authclear what is no token."""
    stored = (b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256", b"EXTERNAL", b"OAUTHBEARER")
    everything = mechanisms(stored, encrypted=True, clear=False, bindings=BOUND, client=b"ann")
    assert everything == ALL
    assert mechanisms(stored, encrypted=True, clear=False, bindings=(), client=b"") == (
        b"SCRAM-SHA-256", b"OAUTHBEARER", b"CRAM-MD5", b"PLAIN", b"LOGIN",
    )  # fmt: skip
    assert mechanisms(stored, encrypted=False, clear=False, bindings=(), client=b"") == ()
    assert mechanisms(stored, encrypted=False, clear=True, bindings=BOUND, client=b"ann") == (
        b"SCRAM-SHA-256", b"CRAM-MD5", b"PLAIN", b"LOGIN",
    )  # fmt: skip
    assert mechanisms((b"PLAIN", b"X"), encrypted=True, clear=False, bindings=BOUND, client=b"") == (b"PLAIN",)


_words = st.sampled_from([b"n", b"y", b"p=tls-exporter", b",", b"\0", b"n=ann", b"r=abc", b"\x01", b"auth=Bearer x"])
_lines = st.one_of(
    st.none(),
    st.binary(max_size=80),
    st.binary(max_size=60).map(b64encode),
    st.lists(_words, max_size=9).map(lambda parts: b64encode(b"".join(parts))),
)
_answers = st.sampled_from([ANN, Refused(b"no", 1), Later(b"x")])


@given(st.sampled_from([*ALL, b"X"]), st.lists(_lines, max_size=5), st.lists(_answers, min_size=5, max_size=5))
def test_any_lines(mechanism: bytes, lines: list[bytes | None], answers: list[LoginAnswer]) -> None:
    """Whatever a client sends, an exchange goes on or ends; it never logs in whom userd does not know."""
    exchange = Exchange(mechanism, PEER._replace(client=b"ann"))
    said_yes = False
    for line, answer in zip(lines, answers, strict=False):
        step = exchange.receive(line)
        while isinstance(step, AskLogin | AskScram):
            said_yes = said_yes or (isinstance(step, AskLogin) and answer is ANN)
            step = exchange.answered(Scram(SALT, 4096) if isinstance(step, AskScram) else answer)
        if isinstance(step, Challenge):
            continue
        assert isinstance(step, Refusal) or said_yes
        return


def test_digest_is_md5() -> None:
    """The digest in the tests above is CRAM-MD5's own of RFC 2195 section 2."""
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert hmac.digest(b"tanstaaftanstaaf", challenge, md5).hex() == "b913a602c7eda7a495b4e6e7334d3890"
