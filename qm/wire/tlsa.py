"""TLSA records as mail uses them (RFC 6698, 7671, 7672): which are usable, and what they match.  Pure."""

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from qm.wire.record import Malformed, number

TRUST_ANCHOR: Final = 2  # DANE-TA
END_ENTITY: Final = 3  # DANE-EE
WHOLE, KEY = 0, 1  # selectors: the certificate, its public key
EXACT, SHA256, SHA512 = 0, 1, 2  # matching types
_LENGTHS: Final = {SHA256: 32, SHA512: 64}


class Tlsa(NamedTuple):
    usage: int
    selector: int
    matching: int
    data: bytes


def is_usable(record: Tlsa) -> bool:
    """Usages that need the roots of the web are none for mail (RFC 7672 3.1.3)."""
    usage, selector, matching, data = record
    if usage not in (TRUST_ANCHOR, END_ENTITY) or selector not in (WHOLE, KEY):
        return False
    return bool(data) if matching == EXACT else len(data) == _LENGTHS.get(matching, -1)


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that count: of several digests for one usage and selector, the strongest (RFC 7671 9)."""
    good = [record for record in records if is_usable(record)]
    strong = {record[:2] for record in good if record.matching == SHA512}
    return tuple(record for record in good if record.matching != SHA256 or record[:2] not in strong)


def matches(record: Tlsa, certificate: bytes, key: bytes) -> bool:
    """Whether *record*, a usable one, is of this certificate; both in DER, *key* its SubjectPublicKeyInfo."""
    text = key if record.selector == KEY else certificate
    if record.matching == EXACT:
        return text == record.data
    digest = hashlib.sha512 if record.matching == SHA512 else hashlib.sha256
    return digest(text).digest() == record.data


def pack(records: Iterable[Tlsa]) -> bytes:
    """One word; empty for none."""
    return b",".join(b"%d-%d-%d-%b" % (*record[:3], record.data.hex().encode()) for record in records)


def unpack(word: bytes) -> tuple[Tlsa, ...]:
    """Raises Malformed for anything that pack does not make."""
    return tuple(_unpack(item) for item in word.split(b",")) if word else ()


def _unpack(item: bytes) -> Tlsa:
    fields = item.split(b"-")
    if len(fields) != 4:
        raise Malformed("a TLSA record with fields missing")
    try:
        data = bytes.fromhex(fields[3].decode("ascii"))
    except ValueError as error:
        raise Malformed("a TLSA record that is not hexadecimal") from error
    usage, selector, matching = (number(field, 255) for field in fields[:3])
    return Tlsa(usage, selector, matching, data)
