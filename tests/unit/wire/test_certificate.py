"""The end of a certificate and the hash of its signature, compared with a library for X.509."""

import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from qm.disk import selfsigned
from qm.wire.certificate import NotCertificate, read

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def _certificate(key: Key, algorithm: hashes.HashAlgorithm | None, until: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 << 100)
    built = builder.not_valid_before(until - timedelta(days=9)).not_valid_after(until)
    return built.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_hash(kind: str, algorithm: hashes.HashAlgorithm) -> None:
    """It is the one that the signature was made with."""
    key: Key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    assert read(_certificate(key, algorithm, NOW)).hash == algorithm.name


def test_no_hash() -> None:
    """Ed25519 has none of its own, so that there is no tls-server-end-point."""
    assert read(_certificate(ed25519.Ed25519PrivateKey.generate(), None, NOW)).hash == ""


@pytest.mark.parametrize("until", [NOW, datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), NOW.replace(year=2050)])
def test_until(until: datetime) -> None:
    """The end is read in both forms of a time, to the second."""
    key = ec.generate_private_key(ec.SECP256R1())
    assert read(_certificate(key, hashes.SHA256(), until)).until == until


def test_our_own() -> None:
    """The certificate that quickstart makes can be read, and by OpenSSL too."""
    text = selfsigned.pem(["mx.test", "localhost"]).decode()
    der = ssl.PEM_cert_to_DER_cert(text.partition("-----BEGIN PRIVATE KEY")[0])
    found = read(der)
    assert found.until == x509.load_der_x509_certificate(der).not_valid_after_utc
    assert hashlib.new(found.hash).name == "sha256"


@given(st.binary(max_size=100), st.integers(0, 400))
def test_any_bytes(garbage: bytes, keep: int) -> None:
    """What is no certificate is NotCertificate, and nothing else."""
    for data in (garbage, _GOOD[:keep] + garbage):
        try:
            read(data)
        except NotCertificate:
            pass


_GOOD = _certificate(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), NOW)
