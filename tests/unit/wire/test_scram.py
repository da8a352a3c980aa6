"""SCRAM's arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import scram
from qm.wire.record import Malformed
from qm.wire.scram import Verifier

SALT = scram.decoded(b"W22ZaJ0SNY7soEsUEjb6gQ==")
AUTH_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
PROOF = scram.decoded(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


def test_the_example() -> None:
    """RFC 7677 section 3: the proof is right, and the signature is what the client expects."""
    verifier = scram.verifier(b"pencil", SALT, 4096)
    assert scram.proves(verifier.stored_key, AUTH_MESSAGE, PROOF)
    assert scram.signature(verifier.server_key, AUTH_MESSAGE) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert not scram.proves(verifier.stored_key, AUTH_MESSAGE + b" ", PROOF)
    assert not scram.proves(verifier.stored_key, AUTH_MESSAGE, bytes(32))
    assert not scram.proves(scram.verifier(b"Pencil", SALT, 4096).stored_key, AUTH_MESSAGE, PROOF)


def test_text() -> None:
    """A verifier is written as Dovecot writes it, and comes back."""
    verifier = scram.verifier(b"pencil", SALT, 4096)
    assert scram.text(verifier).startswith(b"4096,W22ZaJ0SNY7soEsUEjb6gQ==,")
    assert scram.parse(scram.text(verifier)) == verifier


@pytest.mark.parametrize(
    "text", [b"", b"4096,c2FsdA==,a,b", b"4096,c2FsdA==,,", b"99,c2FsdA==,%b,%b", b"x,c2FsdA==,%b,%b", b"4096,,%b,%b"]
)
def test_what_is_no_verifier(text: bytes) -> None:
    """Too few iterations, no salt, keys of another length."""
    keys = (b"A" * 43 + b"=",) * text.count(b"%b")
    with pytest.raises(Malformed):
        scram.parse(text % keys)


@given(st.binary(max_size=100))
def test_any_bytes(text: bytes) -> None:
    """Any bytes are a verifier or malformed."""
    try:
        assert scram.parse(text).iterations >= scram.ITERATIONS_MIN
    except Malformed:
        pass


def test_a_made_up_salt() -> None:
    """A salt depends on key and name alone, and is as long as any."""
    assert scram.made_up_salt(b"k", b"ann") == scram.made_up_salt(b"k", b"ann")
    assert len({scram.made_up_salt(key, name) for key in (b"k", b"l") for name in (b"ann", b"bob")}) == 4
    assert len(scram.made_up_salt(b"k", b"")) == scram.SALT_BYTES


def test_no_key_is_printed() -> None:
    """A verifier that ends up in a message does not show its keys."""
    assert repr(Verifier(4096, b"salt", b"stored", b"server")) == "Verifier(4096)"
