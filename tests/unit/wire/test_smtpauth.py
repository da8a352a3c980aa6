"""control/smtpauth: whose login goes to which relay, and what a session must be before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.record import Malformed
from qm.wire.smtpauth import BadLogin, Guard, Login, demand, pack_login, parse, unpack_login
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import CLEAR, Demand, Level

HERE = Destination(b"mail.example", 587, relay=True)
MAY = Demand(Level.MAY, b"may")
ENCRYPT = Demand(Level.ENCRYPT, b"tlspolicy")
VERIFY = Demand(Level.VERIFY, b"tlspolicy", (b"other.example",))
DANE = Demand(Level.DANE, b"DANE", (b"mail.example",))
TRIAL = Demand(Level.VERIFY, b"MTA-STS-testing", (b"mail.example",), trial=True)
OURS = Demand(Level.VERIFY, b"smtpauth", (b"mail.example",))


@pytest.mark.parametrize(
    ("line", "relay", "login"),
    [
        (b"Mail.Example:587 ann secret", (b"mail.example", 587), Login(b"ann", b"secret")),
        (b"mail.example  ann@x  two  words:", (b"mail.example", 25), Login(b"ann@x", b" two  words:")),
        (b"mail.example:465:encrypt a b", (b"mail.example", 465), Login(b"a", b"b", Guard.ENCRYPT)),
        (b"mail.example:clear a b", (b"mail.example", 25), Login(b"a", b"b", Guard.CLEAR)),
        (b"[::1]:2525:plain a b", (b"[::1]", 2525), Login(b"a", b"b", Guard.PLAIN)),
        (b"plain a b", (b"plain", 25), Login(b"a", b"b")),
    ],
)
def test_lines(line: bytes, relay: tuple[bytes, int], login: Login) -> None:
    """A relay, its port, perhaps a guard; a name; and the rest is the password."""
    assert parse([line]) == {relay: login}


@pytest.mark.parametrize(
    "line", [b"", b"secret", b"mail.example:x ann secret", b"mail.example ann", b"[::1 a b", b":25 a b", b"x:25:no a b"]
)
def test_a_broken_line_shows_nothing(line: bytes) -> None:
    """A line that means nothing is told by its number: whatever is in it may be a password."""
    with pytest.raises(BadLogin) as raised:
        parse([b"mail.example ann secret", line])
    assert "(control/smtpauth: entry 2: " in str(raised.value)
    assert "secret" not in str(raised.value)


def test_nothing_shows_a_password() -> None:
    """The representation of a login has a name."""
    assert "secret" not in repr(Login(b"ann", b"secret"))


def test_too_many() -> None:
    """Each relay costs a descriptor, so there is an end to them."""
    with pytest.raises(BadLogin, match="more than 200 relays"):
        parse([b"r%d a b" % n for n in range(201)])


@pytest.mark.parametrize(
    ("guard", "given_demand", "want"),
    [
        (Guard.VERIFY, CLEAR, OURS),
        (Guard.VERIFY, MAY, OURS),
        (Guard.VERIFY, ENCRYPT, OURS),
        (Guard.VERIFY, TRIAL, OURS),
        (Guard.VERIFY, VERIFY, VERIFY),
        (Guard.VERIFY, DANE, DANE),
        (Guard.ENCRYPT, CLEAR, Demand(Level.ENCRYPT, b"smtpauth")),
        (Guard.ENCRYPT, MAY, Demand(Level.ENCRYPT, b"smtpauth")),
        (Guard.ENCRYPT, TRIAL, Demand(Level.ENCRYPT, b"smtpauth")),
        (Guard.ENCRYPT, ENCRYPT, ENCRYPT),
        (Guard.ENCRYPT, VERIFY, VERIFY),
        (Guard.CLEAR, MAY, MAY),
        (Guard.CLEAR, CLEAR, CLEAR),
        (Guard.PLAIN, CLEAR, CLEAR),
        (Guard.PLAIN, VERIFY, VERIFY),
    ],
)
def test_demand(guard: Guard, given_demand: Demand, want: Demand) -> None:
    """A guard asks for more than the policy where that is less, and never for less."""
    assert demand(given_demand, guard, HERE, b"Mail.Example") == want


@given(st.binary(max_size=40) | st.builds(pack_login, st.builds(Login, st.just(b"a"), st.just(b"b"))))
def test_any_bytes(record: bytes) -> None:
    """Any bytes are a login or Malformed; any line is a login or BadLogin."""
    try:
        assert pack_login(unpack_login(record)) == record
    except Malformed:
        pass
    try:
        parse([record])
    except BadLogin:
        pass
