"""The privileged half of popup believes its speaker one thing only: that somebody wants to log in."""


import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.popup import session
from qm.popup.speaker import Talk
from qm.unix import fds
from qm.wire.pop3auth import Login
from qm.wire.record import Malformed, pack

TALK = Talk(b"+OK <1.2@h>", 0, False, b"<1.2@h>", False, 20, 1000)
numbers = st.integers(0, 10**9)
lines = st.binary(max_size=40).filter(lambda line: b"\0" not in line)


def _hear(report: bytes, talk: Talk = TALK) -> Login | None:
    ours, theirs = fds.pair()
    with ours, theirs:
        fds.send_record(theirs, report)
        return session._report(ours, talk, 5.0)


def test_a_login() -> None:
    """A login is heard, and so is that the peer has left."""
    assert _hear(b"+" + pack(b"PASS", b"alice", b"secret")) == Login(b"PASS", b"alice", b"secret")
    assert _hear(b"+-") is None


@pytest.mark.parametrize(
    "report",
    [
        b"-",
        b"+",
        b"+EXEC\0alice\0secret\0",
        b"+PASS\0alice\0secret",
        b"+PASS\0alice\0secret\0more\0",
        b"+PASS\0\0secret\0",
        b"+APOP\0alice\0digest\0",  # not offered
        b"+PASS\0alice\0" + b"x" * 500 + b"\0",  # no checkpassword takes that
        b"+PASS\0alice\0" + b"x" * 5000 + b"\0",
    ],
)
def test_anything_else(report: bytes) -> None:
    """A speaker that says anything else has been taken over, or is broken."""
    with pytest.raises(Malformed):
        _hear(report)


def test_apop_where_it_is_offered() -> None:
    """A digest is heard after a greeting that offers APOP."""
    assert _hear(b"+APOP\0alice\0digest\0", TALK._replace(offer_apop=True)) == Login(b"APOP", b"alice", b"digest")


def test_silence() -> None:
    """A speaker that says nothing is waited for until the limit."""
    ours, theirs = fds.pair()
    with ours, theirs, pytest.raises(TimeoutError):
        session._report(ours, TALK, 0.05)


@given(st.builds(Talk, lines, numbers, st.booleans(), lines, st.booleans(), numbers, numbers))
def test_what_the_speaker_is_told(talk: Talk) -> None:
    """The record says all, and nothing else."""
    assert Talk.unpack(talk.pack()) == talk
