"""A certificate that nobody but its key vouches for: enough to encrypt, until there is a better one."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qm.disk import atomic

DAYS: Final = 3650  # nobody renews it, and who trusts it trusts the key
COMMON_NAME_MAX: Final = 64  # RFC 5280, its appendix A.1
_AN_HOUR: Final = timedelta(hours=1)  # clocks differ


def pem(names: Sequence[str]) -> bytes:
    """A certificate for *names*, domains, with its new key: ECDSA on P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:COMMON_NAME_MAX])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), secrets.randbits(120) | 1)
        .not_valid_before(now - _AN_HOUR)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + shown


def make(path: str, names: Sequence[str]) -> None:
    """Write it to *path*, for its owner's eyes only.  Raises Temporary."""
    text = pem(names)
    atomic.replace(path, lambda file: file.write(text), mode=0o600)
