"""Certificates of a test's own: an authority, and what it signs."""

import datetime
import hashlib
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY: Final = datetime.timedelta(days=1)
_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """A root; its certificate is in *folder*, as NAME.pem."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"the test's {name}")
        builder = self._builder(self._name, self._key.public_key(), 30 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        builder = builder.add_extension(_CA_USAGE, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        issuer = self._key.public_key()
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - 10 * DAY).not_valid_after(now + life)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)

    def issue(self, *names: str, life: datetime.timedelta = 30 * DAY, chain: bool = True, client: bool = False) -> Path:
        """A key, its certificate for *names*, and the root, in one file that everybody may read; for a *client*?"""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(names[0]), key.public_key(), life)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_general, names)]), critical=False)
        certificate = builder.add_extension(usage, critical=False).sign(self._key, hashes.SHA256())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificates = [certificate, self.certificate] if chain else [certificate]
        path = self._folder / f"{len(list(self._folder.glob('*.pem')))}.pem"
        path.write_bytes(secret + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates))
        path.chmod(0o644)
        return path


def tlsa(path: Path, usage: int = 3, selector: int = 1, matching: int = 1, place: int = 0) -> str:
    """The record, in text, for certificate number *place* of a file of `issue`, or of an authority's."""
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[place]
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = key if selector else certificate.public_bytes(serialization.Encoding.DER)
    data = {0: text, 1: hashlib.sha256(text).digest(), 2: hashlib.sha512(text).digest()}[matching]
    return f"{usage} {selector} {matching} {data.hex()}"
