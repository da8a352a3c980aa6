"""What is stored of a name's secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import scram, storedsecret
from qm.wire.record import Malformed
from qm.wire.storedsecret import Secrets, is_app_secret, mechanisms, parse

VERIFIER = scram.verifier(b"pencil", b"salt", 4096)
APP = scram.verifier(b"other", b"salt", 4096)
V, A = scram.text(VERIFIER), scram.text(APP)


def test_words() -> None:
    """A hash, a verifier, app passwords, a certificate; the password itself last, with all its blanks."""
    assert parse(b"$6$x$y") == Secrets(b"$6$x$y")
    everything = b"$6$x$y {SCRAM-SHA-256}%b {APP}phone,%b {EXTERNAL}" % (V, A)
    assert parse(everything) == Secrets(b"$6$x$y", VERIFIER, ((b"phone", APP),), True)
    assert storedsecret.text(parse(everything)) == everything
    plain = b"{SCRAM-SHA-256}%b {PLAIN} a {APP} b " % V
    assert parse(plain) == Secrets(b"{PLAIN} a {APP} b ", VERIFIER)
    assert parse(plain).plain == b" a {APP} b "
    assert parse(b"{PLAIN}x {PLAIN}y").plain == b"x {PLAIN}y"
    assert parse(b"{EXTERNAL}") == Secrets(external=True)


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b" ",
        b"$6$x $6$y",
        b"{SHA}x",
        b"{PLAIN}",
        b"{SCRAM-SHA-256}x",
        b"{SCRAM-SHA-256}%b {SCRAM-SHA-256}%b" % (V, V),
        b"{APP}%b" % A,
        b"{APP}a b,%b" % A,
        b"{APP}a,%b {APP}a,%b" % (A, A),
        b" ".join(b"{APP}%d,%b" % (number, A) for number in range(17)),
        b"{SCRAM-SHA-256}%b {APP}a,%b" % (V, scram.text(scram.verifier(b"x", b"other salt", 4096))),
        b"$" + b"x" * 1024,
    ],
)
def test_what_is_refused(field: bytes) -> None:
    """Two of one kind, unknown words, a label twice, different salts, nothing at all."""
    with pytest.raises(Malformed):
        parse(field)


@given(st.binary(max_size=100))
def test_any_bytes(field: bytes) -> None:
    """Any bytes are secrets that come back, or malformed."""
    try:
        found = parse(field)
    except Malformed:
        return
    assert parse(storedsecret.text(found)) == found


def test_what_they_can_serve() -> None:
    """Each password must be able to: a hash without a verifier is no SCRAM, an app password no CRAM-MD5."""
    both = {b"PLAIN", b"LOGIN"}
    assert mechanisms(Secrets(b"$6$x$y")) == both
    assert mechanisms(Secrets(b"$6$x$y", VERIFIER)) == both | {b"SCRAM-SHA-256"}
    assert mechanisms(Secrets(b"$6$x$y", None, ((b"a", APP),))) == both
    assert mechanisms(Secrets(b"", None, ((b"a", APP),))) == both | {b"SCRAM-SHA-256"}
    assert mechanisms(Secrets(b"{PLAIN}x", VERIFIER)) == both | {b"SCRAM-SHA-256", b"CRAM-MD5"}
    assert mechanisms(Secrets(b"{PLAIN}x", VERIFIER, ((b"a", APP),))) == both | {b"SCRAM-SHA-256"}
    assert mechanisms(Secrets(external=True)) == {b"EXTERNAL"}


def test_app_secrets() -> None:
    """Six groups of four letters and digits, none of which looks like another."""
    assert is_app_secret(b"k3vd-9tqa-xw2m-hh7p-c4fz-r6ju")
    for other in (b"", b"secret", b"k3vd-9tqa-xw2m-hh7p-c4fz", b"K3vd" + b"-9tqa" * 5, b"k0vd" + b"-9tqa" * 5):
        assert not is_app_secret(other)


def test_no_secret_is_printed() -> None:
    """Secrets that end up in a message show nothing."""
    assert repr(Secrets(b"{PLAIN}hunter2")) == "Secrets()"
