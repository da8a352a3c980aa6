"""The privileged half of popup believes its speaker few things only: what was offered, in this very conversation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.popup import policy, session
from qm.popup.talk import Talk
from qm.unix import fds
from qm.wire.pop3auth import Offer
from qm.wire.pop3login import Failed, Left, Login, Report, Stls, pack_report
from qm.wire.record import Malformed, pack
from qm.wire.sasl import Peer

NONCE = b"0123456789abcdef"
OFFER = Offer(apop=False, stls=False, forced=False)
PEER = Peer(b"192.0.2.7", b"mx.example", NONCE, ())
TALK = Talk(b"+OK <1.2@h>", b"", 0, False, b"<1.2@h>", OFFER, PEER, 20, 1000, False)
WORDS = (b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256", b"OAUTHBEARER", b"EXTERNAL", b"CRAM-MD5")
UNDER_TLS = TALK._replace(offer=OFFER._replace(mechanisms=WORDS), encrypted=True)
numbers = st.integers(0, 10**9)
lines = st.binary(max_size=40).filter(lambda line: b"\0" not in line)
words = st.binary(min_size=1, max_size=9).filter(lambda word: not set(word) & set(b"\0 ,:\t\n\r\f\v"))
bindings = st.dictionaries(words, st.binary(min_size=1, max_size=9), max_size=2)
offers = st.builds(Offer, st.booleans(), st.booleans(), st.booleans(), st.lists(words, max_size=3).map(tuple))
peers = st.builds(Peer, lines, lines, lines, st.just(()), bindings, lines)


def _hear(report: bytes, talk: Talk = TALK) -> Report:
    ours, theirs = fds.pair()
    with ours, theirs:
        fds.send_record(theirs, report)
        return session._report(ours, talk, 5.0)


def test_a_login() -> None:
    """A login is heard, and so is that the peer has left, or has failed."""
    for report in (Login(b"PASS", b"alice", b"secret"), Left(), Failed(False, 3)):
        assert _hear(b"+" + pack_report(report)) == report


@pytest.mark.parametrize(
    "report",
    [
        b"-",
        b"+",
        b"+login\0EXEC\0alice\0secret\0\0",
        b"+login\0PASS\0alice\0secret\0",
        b"+login\0PASS\0alice\0secret\0\0more\0",
        b"+login\0PASS\0\0secret\0\0",
        b"+login\0APOP\0alice\0digest\0<1.2@h>\0",  # not offered
        b"+stls\0",
        b"+login\0PASS\0alice\0" + b"x" * 500 + b"\0\0",  # no checkpassword takes that
        b"+login\0PASS\0alice\0" + b"x" * 50_000 + b"\0\0",
    ],
)
def test_anything_else(report: bytes) -> None:
    """A speaker that says anything else has been taken over, or is broken."""
    with pytest.raises(Malformed):
        _hear(report)


def test_what_was_offered() -> None:
    """A digest is heard after a greeting that offers APOP, and answers that banner; STLS where it can be had."""
    apop = Login(b"APOP", b"alice", b"digest", TALK.banner)
    talk = TALK._replace(offer=OFFER._replace(apop=True, stls=True))
    assert policy.offered(apop, talk) == apop
    assert policy.offered(Stls(), talk) == Stls()
    with pytest.raises(Malformed):
        policy.offered(apop._replace(challenge=b"<0.9@h>"), talk)


@pytest.mark.parametrize("method", [b"PASS", b"APOP"])
def test_nothing_in_clear(method: bytes) -> None:
    """Where TLS is demanded no login is believed before it."""
    talk = TALK._replace(offer=Offer(apop=True, stls=True, forced=True))
    with pytest.raises(Malformed):
        policy.offered(Login(method, b"a", b"b", TALK.banner), talk)


@pytest.mark.parametrize("method", [b"cram-md5", b"scram-sha-256", b"external", b"oauthbearer"])
def test_sasl_methods(method: bytes) -> None:
    """A method counts where its mechanism was offered, a proof where it answers a challenge of this conversation.

    So a speaker that was taken over cannot use what it has heard from somebody once more.
    """
    secret = b"" if method == b"external" else b"x"
    login = Login(method, b"alice", secret, b"r=abc" + NONCE)
    assert policy.offered(login, UNDER_TLS) == login
    with pytest.raises(Malformed):
        policy.offered(login, TALK)
    if method in (b"cram-md5", b"scram-sha-256"):
        with pytest.raises(Malformed):
            policy.offered(login._replace(challenge=b"r=abc0000000000000000"), UNDER_TLS)


def test_silence() -> None:
    """A speaker that says nothing is waited for until the limit."""
    ours, theirs = fds.pair()
    with ours, theirs, pytest.raises(TimeoutError):
        session._report(ours, TALK, 0.05)


@given(
    st.builds(
        Talk, lines, lines, numbers, st.booleans(), lines, offers, peers, numbers, numbers, st.booleans(),
    )
)  # fmt: skip
def test_what_the_speaker_is_told(talk: Talk) -> None:
    """The record says all, and nothing else."""
    talk = talk._replace(peer=talk.peer._replace(offered=talk.offer.mechanisms))
    assert Talk.unpack(talk.pack()) == talk


@pytest.mark.parametrize("record", [b"", pack(*[b"1"] * 16), pack(*[b"1"] * 18), pack(*[b"x"] * 17)])
def test_no_other_record_is_a_talk(record: bytes) -> None:
    """Anything else is refused."""
    with pytest.raises(Malformed):
        Talk.unpack(record)


def test_answers() -> None:
    """Who was wrong, or nobody could tell about, hears so (RFC 3206); the wait is userd's, else the control file's."""
    assert policy.answer(Failed(False, 4), 2, b"PASS") == policy.Answer(policy.BAD_LOGIN, b"", 4)
    assert policy.answer(Failed(True, policy.DELAY_UNKNOWN), 2, b"PASS") == policy.Answer(policy.LATER, b"", 2)
    assert policy.answer(Failed(False, 200), 2, b"") == policy.Answer(policy.BAD_LOGIN, b"", policy.DELAY_MAX_S)
    line, after, _ = policy.answer(Failed(False, 0), 2, b"oauthbearer")
    assert line.startswith(b"+ ") and after == policy.BAD_LOGIN
    assert policy.answer(Failed(True, 0), 2, b"oauthbearer").after == b""


def test_what_a_child_says() -> None:
    """A refusal is told from a session's exit code, whatever that is."""
    said = session._Said()
    for failed in (Failed(False, 0), Failed(True, 30), Failed(True, policy.DELAY_UNKNOWN)):
        said.write(failed)
        assert said.read() == failed
    said.clear()
    assert said.read() is None
