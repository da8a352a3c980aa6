"""Stored passwords: made and checked."""

from base64 import b64encode
from hashlib import scrypt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm.disk import hashes
from qm.errors import Temporary
from qm.unix import accounts


def _scrypt(secret: bytes, ln: int = 4, r: int = 8, p: int = 1) -> bytes:
    found = scrypt(secret, salt=b"saltsalt", n=1 << ln, r=r, p=p, dklen=32)
    salt, text = (b64encode(part).rstrip(b"=") for part in (b"saltsalt", found))
    return b"$scrypt$ln=%d,r=%d,p=%d$%b$%b" % (ln, r, p, salt, text)


def _cases() -> list[bytes]:
    made = [hashes.make(b"secret"), _scrypt(b"secret"), b"{PLAIN}secret"]
    settings_ = (b"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$", b"$6$saltsalt$", b"$5$saltsalt$")
    return made + [found for setting in settings_ if (found := accounts.crypt(b"secret", setting))]


@pytest.mark.parametrize("stored", _cases(), ids=lambda stored: stored[:9].decode())
def test_check(stored: bytes) -> None:
    """Each kind of hash knows its password from others, and may stand in users/passwd."""
    assert hashes.storable(stored)
    assert hashes.check(stored, b"secret")
    for other in (b"Secret", b"secret ", b"", b"s" * 511):
        assert not hashes.check(stored, other)


def test_a_hash_has_its_own_salt() -> None:
    """The same password is stored differently each time."""
    assert hashes.make(b"x") != hashes.make(b"x")


def test_the_decoy_costs_what_a_hash_costs() -> None:
    """An unknown name is checked against a hash with the parameters of those that we make."""
    parameters = b"$argon2id$v=19$m=%d,t=%d,p=%d$" % (hashes.MEMORY_KIB, hashes.TIME_COST, hashes.LANES)
    assert hashes.DECOY.startswith(parameters)
    assert hashes.make(b"x").startswith(parameters)
    assert len(hashes.make(b"x")) == len(hashes.DECOY)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"secret",
        b"{PLAIN}",
        b"*",
        b"!$6$salt$hash",
        b"$1$salt$hash",
        b"abJnggxhB/yWI",
        b"$argon2id$v=19$m=9999999,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$scrypt$ln=30,r=8,p=1$c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$scrypt$ln=4,r=99,p=99$!$!",
        b"$scrypt$ln=4,r=8,p=1$c2FsdA$YQ",
    ],
)
def test_not_storable(stored: bytes) -> None:
    """No hash, a weak one, a locked one and one that asks for a gigabyte do not get into users/passwd."""
    assert not hashes.storable(stored)


@pytest.mark.parametrize(
    "stored",
    [
        b"$argon2id$v=19$m=9999999,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$argon2id$v=19$m=8,t=0,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$scrypt$ln=30,r=8,p=1$c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$scrypt$ln=0,r=0,p=0$c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$scrypt$ln=4,r=8,p=1$aaaaa$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
        b"$what$is$this",
        b"",
    ],
)
def test_what_cannot_be_checked(stored: bytes) -> None:
    """A hash that we cannot check is a temporary failure, never a wrong password and never a right one."""
    with pytest.raises(Temporary) as caught:
        hashes.check(stored, b"hunter2")
    assert "hunter2" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60).filter(lambda stored: b"\0" not in stored), st.binary(max_size=20))
def test_any_bytes(stored: bytes, secret: bytes) -> None:
    """No garbage is anybody's password."""
    try:
        assert not hashes.check(stored, secret.replace(b"\0", b""))
    except Temporary:
        pass


def test_same() -> None:
    """Equal is equal to the last byte."""
    assert hashes.same(b"a", b"a")
    assert not hashes.same(b"a", b"b")
    assert not hashes.same(b"", b"b")
