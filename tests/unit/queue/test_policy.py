"""Who may ask the queue for what."""

import re

from hypothesis import given
from hypothesis import strategies as st

from qm.queue import policy
from qm.wire import date
from qm.wire.door import Begin
from qm.wire.envelope import Envelope

OWNER, ALIAS, QMAILD, QMAILS, STRANGER = 60002, 60004, 60001, 60003, 1000
RULES = policy.rules(OWNER, ALIAS, QMAILD, QMAILS)
PRIVATE = policy.rules(1000, 1000, 1000, 1000)
NAME = b"1htpzqqd7xhat00k7p"
DATE = b"Tue, 24 Nov 2026 04:10:07 -0000"
TRACE = Begin(b"Received: from a (b)\n  by c with ESMTP", b"\n  for <d@e>")


def _received(uid: int, start: Begin = Begin(), rules: policy.Rules = RULES) -> bytes:  # noqa: B008
    return policy.received(rules, uid, start, NAME, DATE)


def test_the_wording_tells_who_asked() -> None:
    """Each role has its words in our Received field, everybody else a number (qmail.md section 5)."""
    assert _received(ALIAS) == b"Received: (qm-queue invoked by alias)\n  id " + NAME + b"; " + DATE + b"\n"
    assert b"invoked from network)" in _received(QMAILD)
    assert b"invoked for bounce)" in _received(QMAILS)
    assert b"invoked by uid 1000)" in _received(STRANGER)
    assert b"invoked by uid 60002)" in _received(OWNER)


def test_in_a_private_system_a_number_says_enough() -> None:
    """Where all roles are one user, his number is told, and a bounce is known by its ID."""
    assert b"invoked by uid 1000)" in _received(1000, rules=PRIVATE)
    assert b"invoked for bounce)" in _received(1000, Begin(name=NAME + b"b"), PRIVATE)
    assert b"invoked by uid 1001)" in _received(1001, TRACE, PRIVATE)


def test_a_trace_is_believed_from_smtpd_and_the_owner_only() -> None:
    """Nobody else can make our Received field say where a message came from."""
    traced = b"Received: from a (b)\n  by c with ESMTP\n  id " + NAME + b"\n  for <d@e>; " + DATE + b"\n"
    assert _received(QMAILD, TRACE) == _received(OWNER, TRACE) == _received(1000, TRACE, PRIVATE) == traced
    for uid in (0, ALIAS, QMAILS, STRANGER):
        assert b"from a (b)" not in _received(uid, TRACE)


def test_only_send_and_the_owner_may_ask_for_an_id() -> None:
    """A derived ID is send's to give."""
    start = Begin(name=NAME + b"b")
    allowed = [uid for uid in (0, OWNER, ALIAS, QMAILD, QMAILS, STRANGER) if policy.may_begin(RULES, uid, start)]
    assert allowed == [OWNER, QMAILS]
    assert policy.may_begin(RULES, STRANGER, Begin())


def test_a_stranger_claims_no_client_and_no_protocol() -> None:
    """What network programs record of their peer cannot be forged by a local user; what he may ask for stays."""
    claimed = Envelope(b"a@b", (), client=b"10.0.0.1", protocol=b"ESMTPSA", eight_bit=True, envid=b"x")
    claimed = claimed._replace(held=b"limitmessages", login=b"y")
    assert policy.honest(RULES, QMAILD, claimed) == claimed
    believed = claimed._replace(client=b"", protocol=b"local", held=b"", login=b"")
    assert policy.honest(RULES, STRANGER, claimed) == believed


@given(st.integers(0, 1 << 32), st.integers(0, 1 << 32))
def test_our_own_field_is_one_header_field(uid: int, time_s: int) -> None:
    """It has the form of RFC 5322 3.6.7: tokens, a semicolon, a date; continuation lines begin with a blank."""
    field = policy.received(RULES, uid, Begin(), NAME, date.rfc5322(time_s))
    wanted = rb"Received: \([a-z0-9 -]+\)\n  id [0-9a-z]{18}; \w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
    assert re.fullmatch(wanted, field)
