"""The few facts of a certificate of our own that qm needs while it runs (RFC 5280 4.1), read from its DER.

A library for X.509 is ten times the size of the processes that would hold it; `qm cert`, which makes certificates, has
one.  The bytes come from files that only root can write.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

# signature algorithms by their encoded object identifier, and the hash that each uses (RFC 5758 3, RFC 8017)
_RSA: Final = bytes.fromhex("2a864886f70d0101")
_ECDSA: Final = bytes.fromhex("2a8648ce3d0403")
_HASHES: Final = {
    _RSA + b"\x04": "sha256",  # MD5 and ...
    _RSA + b"\x05": "sha256",  # ... SHA-1 count as SHA-256 (RFC 5929 4.1)
    _RSA + b"\x0b": "sha256",
    _RSA + b"\x0c": "sha384",
    _RSA + b"\x0d": "sha512",
    _ECDSA + b"\x02": "sha256",
    _ECDSA + b"\x03": "sha384",
    _ECDSA + b"\x04": "sha512",
}
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


class NotCertificate(ValueError):
    """The bytes are no certificate."""


class Certificate(NamedTuple):
    hash: str  # of its signature, as hashlib calls it; "" if the algorithm has none of its own
    until: datetime  # the last moment at which it is good


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag at *at*, and where its content begins and ends; raises NotCertificate."""
    head = data[at : at + 2]
    if len(head) < 2:
        raise NotCertificate("it is cut")
    begin, size = at + 2, head[1]
    if size & 0x80:
        count = size & 0x7F
        begin, size = begin + count, int.from_bytes(data[begin : begin + count], "big")
    if begin + size > len(data):
        raise NotCertificate("it is cut")
    return head[0], begin, begin + size


def _children(data: bytes, begin: int, end: int) -> list[tuple[int, int, int]]:
    found = []
    while begin < end:
        found.append(_element(data, begin))
        begin = found[-1][2]
    return found


def _moment(tag: int, text: bytes) -> datetime:
    """RFC 5280 4.1.2.5: always in seconds, always UTC; years from 50 on are of the last century."""
    words = text.decode("ascii")
    if tag == _UTC_TIME:
        words = ("19" if words[:2] >= "50" else "20") + words
    return datetime.strptime(words, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def read(der: bytes) -> Certificate:
    """Raises NotCertificate."""
    try:
        _, begin, end = _element(der, 0)
        (_, *body), (_, *algorithm), _ = _children(der, begin, end)
        fields = _children(der, *body)
        if fields[0][0] == _VERSION:
            del fields[0]
        _, (tag, begin, end) = _children(der, *fields[3][1:])
        _, *identifier = _children(der, *algorithm)[0]
        return Certificate(_HASHES.get(der[slice(*identifier)], ""), _moment(tag, der[begin:end]))
    except (ValueError, IndexError) as error:
        raise NotCertificate(str(error)) from error
