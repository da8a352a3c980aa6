"""MTA-STS (RFC 8461): the record that tells of a policy, the policy, and what it says of a host.  Pure."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

AGE_MAX_S: Final = 31557600  # RFC 8461 3.2
POLICY_MAX: Final = 65536  # bytes; RFC 8461 3.3
PATTERNS_MAX: Final = 100  # mx lines that count
_ID: Final = re.compile(rb"[A-Za-z0-9]{1,32}")
_PATTERN: Final = re.compile(rb"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
DOMAIN: Final = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")  # what can have a policy, and name a file


class Mode(Enum):
    ENFORCE = b"enforce"
    TESTING = b"testing"
    NONE = b"none"


class Policy(NamedTuple):
    mode: Mode
    max_age_s: int
    patterns: tuple[bytes, ...]  # of exchangers, in lower case


def record_id(texts: Iterable[bytes]) -> bytes:
    """The id of the one record of _mta-sts; empty if there is none that counts (RFC 8461 3.1)."""
    found = [text for text in texts if re.match(rb"v=STSv1[ \t]*;", text)]
    if len(found) != 1:
        return b""
    for field in found[0].split(b";")[1:]:
        key, _, value = field.strip(b" \t").partition(b"=")
        if key.rstrip() == b"id":
            value = value.strip()
            return value if _ID.fullmatch(value) else b""
    return b""


def parse_policy(text: bytes) -> Policy | None:
    """None for what is no policy (RFC 8461 3.2); of a key that may stand once the first counts."""
    fields: dict[bytes, bytes] = {}
    patterns: list[bytes] = []
    for line in text.splitlines():
        key, colon, value = line.partition(b":")
        key, value = key.strip(), value.strip()
        if key == b"mx" and colon:
            pattern = value.lower()
            if not _PATTERN.fullmatch(pattern) or len(patterns) >= PATTERNS_MAX:
                return None
            patterns.append(pattern.removesuffix(b"."))
        elif colon:
            fields.setdefault(key, value)
    age = fields.get(b"max_age", b"")
    if fields.get(b"version") != b"STSv1" or not age.isdigit() or len(age) > 10:
        return None
    try:
        mode = Mode(fields.get(b"mode", b""))
    except ValueError:
        return None
    if mode is not Mode.NONE and not patterns:
        return None
    return Policy(mode, min(int(age), AGE_MAX_S), tuple(patterns))


def allows(policy: Policy, host: bytes) -> bool:
    """Whether *host* is one of the policy's exchangers; a * is one whole label (RFC 8461 4.1)."""
    host = host.lower().removesuffix(b".")
    rest = host.partition(b".")[2]
    return host in policy.patterns or bool(rest and b"*." + rest in policy.patterns)
