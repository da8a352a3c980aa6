"""What an administrator wants to know of a certificate, and whether a chain is what was asked for."""

import hashlib
import re
import socket
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from qm.unix import fds
from qm.wire.record import pack, unpack

GOOD, BAD = b"good", b"bad"
CHAIN_MAX: Final = 10  # certificates
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----.*?-----END ([A-Z]+ )?PRIVATE KEY-----", re.DOTALL)
_CLOCKS: Final = timedelta(hours=1)  # that differ


class Facts(NamedTuple):
    names: tuple[str, ...]
    issuer: str
    self_signed: bool
    since: datetime
    until: datetime
    key: str
    fingerprint: str  # SHA-256 of the certificate
    tlsa: str  # the data of a TLSA record for its key (RFC 7671 5.1)

    def days_left(self, now: datetime) -> int:
        return (self.until - now).days


def public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Those that clients compare: DNS names, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in found.value.get_values_for_type(x509.DNSName))


def _key_type(key: PublicKeyTypes) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    return type(key).__name__.removesuffix("PublicKey")


def facts(certificate: x509.Certificate) -> Facts:
    """Raises ValueError, UnsupportedAlgorithm for what the library cannot read."""
    key = certificate.public_key()
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Facts(
        names(certificate),
        certificate.issuer.rfc4514_string(),
        certificate.issuer == certificate.subject,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _key_type(key),
        hashlib.sha256(der).digest().hex(":"),
        f"3 1 1 {hashlib.sha256(public_bytes(key)).hexdigest()}",
    )


def read(pem: bytes) -> tuple[Facts, PrivateKeyTypes | None]:
    """The first certificate of a file of ours, and its key if that matches; raises ValueError."""
    try:
        certificate = x509.load_pem_x509_certificates(pem)[0]
        found = facts(certificate)
        key: PrivateKeyTypes | None = None
        text = _KEY.search(pem)
        if text is not None:
            key = serialization.load_pem_private_key(text[0], None)
        if key is not None and public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
            key = None
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(str(error)) from error
    return found, key


def why_not(chain: bytes, key: bytes, wanted: tuple[str, ...], now: datetime) -> str:
    """Why the PEM *chain* is no good for a public key (DER) and names; empty if it is.  Raises ValueError."""
    certificates = x509.load_pem_x509_certificates(chain)
    leaf = certificates[0]
    if public_bytes(leaf.public_key()) != key:
        return "it is for another key"
    missing = set(wanted) - set(names(leaf))
    if missing:
        return "it lacks a name that was asked for"
    if not leaf.not_valid_before_utc - _CLOCKS <= now < leaf.not_valid_after_utc:
        return "it is not valid now; is this machine's clock right?"
    if len(certificates) > CHAIN_MAX:
        return "it has too many certificates above it"
    for below, above in pairwise(certificates):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            return "a certificate of its chain has not signed the one before it"
    return ""


def serve(channel: socket.socket) -> None:
    """In a child: judge one chain, with the key, the names, which blanks separate; say until when it is good."""
    record, descriptors = fds.recv_record(channel)
    fds.close_all(descriptors)
    if not record:
        return
    chain, key, wanted = unpack(record, 3)
    try:
        why = why_not(chain, bytes.fromhex(key.decode()), tuple(wanted.decode().split()), datetime.now(UTC))
        until = x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm):
        why = "it cannot be read"
    fds.send_record(channel, pack(BAD, why.encode()) if why else pack(GOOD, b"%d" % until.timestamp()))
