"""AUTH in a session: who is let in, what strangers hear, and what the log tells."""

import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Temporary
from qm.smtpd.client import Means
from qm.smtpd.rules import Rules
from qm.wire.smtplimits import RESPONSE_MAX, Limits
from tests.unit.smtpd.double import ENV, RULES, Peer, Queue, Store, codes, talk

CLEAR = RULES._replace(authclear=True, authhost=b"mx.example")
TLS = {**ENV, b"SSL_PROTOCOL": b"TLSv1.3", b"SSL_CIPHER": b"TLS_AES_256_GCM_SHA384"}


def plain(name: bytes, secret: bytes, acts_for: bytes = b"") -> bytes:
    return b64encode(b"\0".join((acts_for, name, secret)))


RIGHT = plain(b"ann", b"secret")
WRONG = plain(b"ann", b"guess")


def said(wire: bytes, store: Store | None = None, rules: Rules = CLEAR, env: dict[bytes, bytes] = ENV) -> Peer:
    peer = Peer([wire])
    talk(peer, rules=rules, env=env, means=Means(store=store or Store()))
    return peer


def test_login_may_relay() -> None:
    """Who has logged in may send to any host, and Received says so (RFC 3848)."""
    wire = (
        b"EHLO c\r\nAUTH PLAIN " + RIGHT + b"\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@elsewhere.example>\r\nDATA\r\n\r\n.\r\n"
    )
    for env, want in ((ENV, b"ESMTPA"), (TLS, b"ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384)")):
        queue = Queue()
        talk(Peer([wire]), queue, rules=CLEAR, env=env, means=Means(store=Store()))
        [(trace, envelope, _)] = queue.queued
        assert trace.head.endswith(b" with " + want)
        assert envelope.protocol == want.partition(b" ")[0]
        assert envelope.recipients[0].address == b"u@elsewhere.example"


@pytest.mark.parametrize(("rules", "env", "want"), [(RULES, ENV, 0), (RULES, TLS, 1), (CLEAR, ENV, 1)])
def test_who_knows_passwords_is_asked_once_what_it_can(rules: Rules, env: dict[bytes, bytes], want: int) -> None:
    """Not again at AUTH, and not where nothing would be offered."""
    store = Store()
    said(b"EHLO c\r\nAUTH PLAIN " + RIGHT + b"\r\n", store, rules, env)
    assert store.looked == want


def test_without_login_nothing_changes() -> None:
    """Where logins are taken, who has not logged in is a stranger like any other."""
    wire = (
        b"EHLO c\r\nAUTH PLAIN " + WRONG + b"\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@x.example>\r\nRCPT TO:<u@b.example>\r\n"
    )
    assert codes(said(wire).heard) == [220, 250, 535, 250, 553, 250]


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        ([b"AUTH PLAIN " + RIGHT], [235]),
        ([b"auth plain", RIGHT], [334, 235]),
        ([b"AUTH LOGIN", b64encode(b"ann"), b64encode(b"secret")], [334, 334, 235]),
        ([b"AUTH LOGIN " + b64encode(b"ann"), b64encode(b"secret")], [334, 235]),
        ([b"AUTH PLAIN " + WRONG, b"AUTH PLAIN " + RIGHT], [535, 235]),
        ([b"AUTH PLAIN " + plain(b"nobody", b"secret")], [535]),
        ([b"AUTH PLAIN " + plain(b"ann", b"secret", b"bob")], [535]),
        ([b"AUTH PLAIN", b"*", b"NOOP"], [334, 501, 250]),
        ([b"AUTH PLAIN *"], [501]),
        ([b"AUTH PLAIN ="], [501]),
        ([b"AUTH PLAIN ?"], [501]),
        ([b"AUTH PLAIN YQ"], [501]),
        ([b"AUTH PLAIN", b"a\0b"], [334, 501]),
        ([b"AUTH GSSAPI"], [504]),
        ([b"AUTH CRAM-MD5"], [504]),
        ([b"AUTH PLAIN " + RIGHT, b"AUTH PLAIN " + RIGHT], [235, 503]),
        ([b"MAIL FROM:<>", b"AUTH PLAIN " + RIGHT], [250, 503]),
        ([b"AUTH PLAIN", b"x" * (RESPONSE_MAX + 9), b"NOOP"], [334, 500, 250]),
        ([b"AUTH PLAIN " + b"x" * (RESPONSE_MAX + 99), b"NOOP"], [500, 250]),
        ([b"AUTH PLAIN", b"EHLO c", b"NOOP"], [334, 501, 250]),
        ([b"AUTH PLAIN", b""], [334, 501]),
        ([b"AUTH"], [501]),
        ([b"AUTH PLAIN a b"], [501]),
    ],
)
def test_dialogues(lines: list[bytes], want: list[int]) -> None:
    """What is answered to an attempt (RFC 4954 4, 6), whole and byte by byte."""
    wire = b"".join(line + b"\r\n" for line in lines)
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        peer = Peer(pieces)
        talk(peer, rules=CLEAR, means=Means(store=Store()))
        assert codes(peer.heard) == [220, *want]


def test_who_is_unknown_hears_what_everybody_hears() -> None:
    """The answers to an unknown name, a wrong password and an empty one are the same, and as late."""
    peers = [said(b"AUTH PLAIN " + plain(name, secret) + b"\r\n") for name, secret in ((b"ann", b"x"), (b"bob", b"x"))]
    assert peers[0].heard == peers[1].heard
    assert b"535 5.7.8 authentication credentials invalid\r\n" in peers[0].heard
    assert peers[0].waits_s == peers[1].waits_s == [3]


def test_userd_out_of_reach() -> None:
    """When nobody can tell, the answer is temporary, and nothing of why is told."""
    store = Store(trouble=Temporary("cannot look up users now", detail="users/socket: secret"))
    peer = said(b"AUTH PLAIN " + RIGHT + b"\r\n", store)
    assert codes(peer.heard) == [220, 454]
    assert b"secret" not in peer.heard


def test_not_in_clear() -> None:
    """Without TLS and authclear nothing is offered, and a password that comes all the same is not asked for."""
    store = Store()
    peer = said(b"EHLO c\r\nAUTH PLAIN " + RIGHT + b"\r\n", store, RULES)
    assert codes(peer.heard) == [220, 250, 538]
    assert b"AUTH" not in peer.heard
    assert not store.asked
    assert b"250-AUTH PLAIN LOGIN\r\n" in said(b"EHLO c\r\n", store, RULES, TLS).heard


def test_where_nobody_can_log_in() -> None:
    """Without a store of passwords AUTH is no command, and AUTH= no parameter."""
    peer = Peer([b"EHLO c\r\nAUTH PLAIN " + RIGHT + b"\r\nMAIL FROM:<a@b> AUTH=<>\r\n"])
    talk(peer, rules=CLEAR)
    assert codes(peer.heard) == [220, 250, 502, 555]
    assert b"AUTH P" not in peer.heard


def test_auth_parameter() -> None:
    """AUTH= is taken where AUTH is offered, and makes nobody anything (RFC 4954 5)."""
    wire = b"MAIL FROM:<a@b> AUTH=ann@b.example\r\nRCPT TO:<u@elsewhere.example>\r\n"
    assert codes(said(wire).heard) == [220, 250, 553]


def test_log(capfd: pytest.CaptureFixture[str]) -> None:
    """One line for an attempt, with who, how, from where and what came of it; never the secret, in whatever form."""
    wire = b"AUTH PLAIN " + WRONG + b"\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\nQUIT\r\n"
    said(b"AUTH PLAIN " + plain(b"a\x1b[2J\r\nb", b"x") + b"\r\n" + wire)
    log = capfd.readouterr().err
    lines = [re.sub("^qm-smtpd: [0-9]+ ", "", line) for line in log.splitlines() if " login " in line]
    assert lines[0].endswith(" method=PLAIN from=192.0.2.1 code=535 why=a_name_that_nobody_can_have")
    assert lines[1:] == [
        "login name=ann method=PLAIN from=192.0.2.1 code=535 why=wrong_name_or_password",
        "login name=ann method=LOGIN from=192.0.2.1 code=235 why=ok",
    ]
    assert not re.search("guess|secret|c2VjcmV0|" + re.escape(WRONG.decode()), log)


def test_halfway(capfd: pytest.CaptureFixture[str]) -> None:
    """A client that leaves in the middle of an exchange has not logged in, wherever that is."""
    wire = b"AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n"
    for at in range(len(wire)):
        store = Store()
        peer = said(wire[:at], store)
        assert 235 not in codes(peer.heard)
        assert not store.asked
    assert "code=235" not in capfd.readouterr().err


def test_ten_thousand_attempts() -> None:
    """Guesses are errors: the session ends after so many, and the rest of what was sent is not looked at."""
    store = Store()
    peer = Peer([(b"AUTH PLAIN " + WRONG + b"\r\n") * 1000] * 10)
    talk(peer, rules=CLEAR, means=Means(store=store))
    assert codes(peer.heard) == [220, *[535] * Limits().errors, 421]
    assert len(store.asked) == len(peer.waits_s) == Limits().errors


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([RIGHT, WRONG, b"*", b"=", b"YW5u"])), max_size=6))
def test_any_lines(lines: list[bytes]) -> None:
    """Whatever is said in an exchange gives replies, and lets in only who has said the right thing."""
    wire = b"AUTH LOGIN\r\n" + b"".join(line.replace(b"\n", b"") + b"\r\n" for line in lines)
    store = Store()
    peer = said(wire, store)
    in_clear = [(question.name, question.secret) for question in store.asked if not isinstance(question, bytes)]  # type: ignore[union-attr]
    assert (235 in codes(peer.heard)) == ((b"ann", b"secret") in in_clear)
