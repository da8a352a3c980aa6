"""Reading our certificates, judging a chain, and what root takes from its children."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from qm.admin import challenges, obtain, x509facts
from qm.admin.acmesettings import of_default
from qm.admin.challenges import Strange
from qm.admin.obtain import _refuse_worse, _shaped
from qm.disk import selfsigned
from qm.errors import Temporary
from tests.harness.certificates import DAY, Authority

NOW = datetime.now(UTC)
NAMES = ("a.test", "b.test")


def _chain(folder: Path, *names: str, life: timedelta = 30 * DAY) -> tuple[bytes, bytes]:
    """A chain, and the public key that it is for."""
    certificates = x509.load_pem_x509_certificates(Authority(folder).issue(*names, life=life).read_bytes())
    pem = b"".join([certificate.public_bytes(Encoding.PEM) for certificate in certificates])
    return pem, x509facts.public_bytes(certificates[0].public_key())


def test_what_is_shown() -> None:
    """Names, that nobody vouches for it, its time, and that the key in the file is its own."""
    facts, key = x509facts.read(selfsigned.pem(NAMES))
    assert (facts.names, facts.self_signed, facts.key) == (NAMES, True, "ECDSA secp256r1")
    assert facts.days_left(NOW) in (selfsigned.DAYS - 1, selfsigned.DAYS)
    assert key is not None and len(facts.fingerprint) == 95 and facts.tlsa.startswith("3 1 1 ")


@pytest.mark.parametrize("how", ["first", "last"])
def test_the_key_may_stand_anywhere(how: str) -> None:
    """Before or behind the chain; another certificate's key is none."""
    pem, mark, key = selfsigned.pem(NAMES).partition(b"-----BEGIN PRIVATE")
    other = mark + selfsigned.pem(NAMES).partition(mark)[2]
    right = mark + key
    assert x509facts.read(right + pem if how == "first" else pem + right)[1] is not None
    assert x509facts.read(other + pem if how == "first" else pem + other)[1] is None
    assert x509facts.read(pem)[1] is None


@given(st.binary())
def test_any_file(pem: bytes) -> None:
    """It has a certificate, or is refused."""
    with pytest.raises((ValueError, IndexError)):
        x509facts.read(pem)


def test_a_good_chain(tmp_path: Path) -> None:
    """It is for the key and the names, good now, and each certificate is signed by the next."""
    chain, key = _chain(tmp_path, *NAMES)
    assert x509facts.why_not(chain, key, NAMES, NOW) == ""
    assert x509facts.why_not(chain, key, ("A.test".lower(),), NOW) == ""


def test_bad_chains(tmp_path: Path) -> None:
    """Another key, a name that is missing, a wrong time, a chain that is none: each has its words."""
    chain, key = _chain(tmp_path, *NAMES)
    first = chain.partition(b"-----END CERTIFICATE-----\n")
    leaf = first[0] + first[1]
    (tmp_path / "x").mkdir()
    stranger = Authority(tmp_path / "x").path.read_bytes()
    assert "another key" in x509facts.why_not(chain, key + b"x", NAMES, NOW)
    assert "lacks a name" in x509facts.why_not(chain, key, ("c.test",), NOW)
    assert "not valid now" in x509facts.why_not(chain, key, NAMES, NOW + 31 * DAY)
    assert "not valid now" in x509facts.why_not(chain, key, NAMES, NOW - 31 * DAY)
    assert "has not signed" in x509facts.why_not(leaf + stranger, key, NAMES, NOW)
    assert "too many" in x509facts.why_not(leaf * 11, key, NAMES, NOW)


def test_a_worse_one(tmp_path: Path) -> None:
    """A certificate that is good gives way to one for the same names that ends no sooner."""
    path = Authority(tmp_path).issue(*NAMES)
    found = x509facts.read(path.read_bytes())
    _refuse_worse(of_default(NAMES), found, found[0].until)
    _refuse_worse(of_default([*NAMES, "c.test"]), found, NOW)
    with pytest.raises(Temporary, match="ends sooner"):
        _refuse_worse(of_default(NAMES), found, found[0].until - DAY)


def test_shape() -> None:
    """Certificates and nothing else get into root's file: no text, no key, not too much."""
    pem = selfsigned.pem(NAMES)
    certificate = pem.partition(b"-----BEGIN PRIVATE")[0]
    assert _shaped(certificate) == certificate
    assert _shaped(certificate.replace(b"\n", b"\r\n") + b"\r\n" + certificate) == certificate * 2
    for wrong in (pem, b"", b"x" + certificate, certificate[:-9], certificate * 11, certificate + b"\0"):
        with pytest.raises(Strange):
            _shaped(wrong)


@given(st.binary(max_size=200))
def test_any_request(request: bytes) -> None:
    """Whatever a stranger says, a reply is one of two."""
    assert challenges.reply(request, {b"t": b"secret"}).startswith(b"HTTP/1.1 404 ")


def test_roots() -> None:
    """control/tlsroots, else what the system has."""
    assert obtain.roots("mine.pem") == "mine.pem"
    assert obtain.roots("").startswith("/")
