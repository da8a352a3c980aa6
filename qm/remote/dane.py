"""Whether TLSA records vouch for the chain that a server sent (RFC 7671 4, 5; RFC 7672 3)."""

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from qm.wire.tlsa import END_ENTITY, EXACT, TRUST_ANCHOR, WHOLE, Tlsa, matches


def is_vouched_for(records: Iterable[Tlsa], chain: Sequence[bytes], names: Iterable[bytes]) -> bool:
    """*chain* is in DER, the server's own first; *names* count with a trust anchor only."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        own, *others = [(der, _key(c)) for der, c in zip(chain, certificates, strict=True)]
    except ValueError:  # a stranger's bytes
        return False
    anchors = []
    for record in records:
        if record.usage == END_ENTITY and matches(record, *own):
            return True  # RFC 7672 3.1.1: neither its names nor its dates matter
        if record.usage == TRUST_ANCHOR:
            anchors += [c for c, known in zip(certificates[1:], others, strict=True) if matches(record, *known)]
            anchors += _of_record(record)
    return any(_leads_to(anchors, certificates, name) for name in names) if anchors else False


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _of_record(record: Tlsa) -> list[x509.Certificate]:
    """The anchor itself, where a record holds it whole and the server need not send it (RFC 7672 3.1.2)."""
    if (record.selector, record.matching) != (WHOLE, EXACT):
        return []
    try:
        return [x509.load_der_x509_certificate(record.data)]
    except ValueError:
        return []


def _leads_to(anchors: list[x509.Certificate], chain: Sequence[x509.Certificate], name: bytes) -> bool:
    try:
        builder = PolicyBuilder().store(Store(anchors))
        verifier = builder.build_server_verifier(x509.DNSName(name.decode("ascii")))
        verifier.verify(chain[0], list(chain[1:]))
    except (VerificationError, ValueError):
        return False
    return True
