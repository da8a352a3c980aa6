"""Passwords as they are stored: made, and checked against what somebody typed.

    $argon2id$...                      what qm-passwd makes, by argon2-cffi
    $scrypt$ln=14,r=8,p=1$salt$hash    as passlib writes it, by hashlib; base64 without padding
    $y$ $gy$ $7$ $2b$ $2y$ $6$ $5$     crypt(3), by libcrypt: what accounts have
    {PLAIN}password                    for APOP, which cannot do with less; whoever reads the file reads the password

A check takes its 50 ms whatever comes of it, and is no work for a process that others wait for: userd has workers.
"""

import hmac
import os
import re
from base64 import b64decode
from hashlib import scrypt, sha256
from typing import Final, NamedTuple

from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret

from qm.errors import Temporary
from qm.unix import accounts
from qm.wire import scram
from qm.wire.storedsecret import PLAIN, is_app_secret

# RFC 9106 section 4 lets memory come first: 19 MiB a check, which four workers can afford; then as many passes as fill
# 50 ms on a 2.5 GHz core.  Measured: 4 passes 47 ms, 5 passes 58 ms.
TIME_COST: Final = 4
MEMORY_KIB: Final = 19456
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
MEMORY_MAX: Final = 256 * 1024 * 1024  # bytes that one check may take; a stored hash says how many it wants

# Of nobody's password: what a check of an unknown name is spent on.
DECOY: Final = b"$argon2id$v=19$m=19456,t=4,p=1$6Y4L5Eap5TgSAoxB/EqbBw$3DKv1INkE6G7YYFaj/VWhAi9+baMK8vWbE5nwxuOFpQ"

# 22 characters of base64 are 16 bytes: a shorter hash is too easily met
_BASE64: Final = rb"\$([A-Za-z0-9+/]{2,})\$([A-Za-z0-9+/]{22,})"
_ARGON2: Final = re.compile(rb"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})" + _BASE64)
_SCRYPT: Final = re.compile(rb"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})" + _BASE64)
_CRYPT: Final = re.compile(rb"\$(?:y|gy|7|2b|2y|6|5)\$[!-9;-~]+")


def make(secret: bytes) -> bytes:
    """What to store for *secret*; takes as long as a check."""
    return hash_secret(secret, os.urandom(SALT_BYTES), TIME_COST, MEMORY_KIB, LANES, HASH_BYTES, Type.ID)


def storable(stored: bytes) -> bool:
    """Whether *stored* is of a kind that may stand in users/passwd, and asks for no more than MEMORY_MAX."""
    if match := _ARGON2.fullmatch(stored):
        return int(match[1]) * 1024 <= MEMORY_MAX
    if match := _SCRYPT.fullmatch(stored):
        return _scrypt_bytes(int(match[1]), int(match[2]), int(match[3])) <= MEMORY_MAX
    return bool(_CRYPT.fullmatch(stored)) or (stored.startswith(PLAIN) and len(stored) > len(PLAIN))


def check(stored: bytes, secret: bytes) -> bool:
    """Whether *secret* is the password of *stored*.

    Raises Temporary, and tells nothing of either, if that cannot be found out: no memory, no libcrypt, an unknown kind.
    """
    if _ARGON2.fullmatch(stored):
        return _check_argon2(stored, secret)
    if match := _SCRYPT.fullmatch(stored):
        return _check_scrypt(match, secret)
    if stored.startswith(PLAIN):
        _check_argon2(DECOY, secret)
        return same(stored.removeprefix(PLAIN), secret)
    found = accounts.crypt(secret, stored)
    if found is None:
        raise _cannot("libcrypt does not know a hash of this kind")
    return hmac.compare_digest(found, stored)


class Stored(NamedTuple):
    """What a password is checked against; for a name that nobody has, of the same shape."""

    hash: bytes  # b"" if the name has none
    decoy: bytes  # what is checked in the place of no hash
    iterations: int
    salt: bytes
    apps: tuple[bytes, ...]  # the stored keys of app passwords


def check_any(stored: Stored, secret: bytes) -> bool:
    """Whether *secret* is the password, or an app password: how much work that is, the secret's shape alone decides.

    Raises Temporary as `check` does.
    """
    if is_app_secret(secret):
        key = scram.verifier(secret, stored.salt, stored.iterations).stored_key
        if sum(hmac.compare_digest(key, app) for app in stored.apps):
            return True
    return check(stored.hash or stored.decoy or DECOY, secret) and bool(stored.hash)


def same(one: bytes, other: bytes) -> bool:
    """Whether two secrets are equal; the time tells neither content nor length."""
    return hmac.compare_digest(sha256(one).digest(), sha256(other).digest())


def _cannot(why: str) -> Temporary:
    return Temporary("cannot check this password now", detail=why)


def _check_argon2(stored: bytes, secret: bytes) -> bool:
    if not storable(stored):
        raise _cannot("argon2id: wants too much memory")
    try:
        return verify_secret(stored, secret, Type.ID)
    except VerifyMismatchError:
        return False
    except VerificationError as error:
        raise _cannot(f"argon2id: {error}") from error


def _scrypt_bytes(log_n: int, r: int, p: int) -> int:
    return 128 * r * ((1 << log_n) + p + 2)  # RFC 7914 section 2, as OpenSSL counts it


def _check_scrypt(match: re.Match[bytes], secret: bytes) -> bool:
    log_n, r, p = int(match[1]), int(match[2]), int(match[3])
    memory = _scrypt_bytes(log_n, r, p)
    if memory > MEMORY_MAX:
        raise _cannot("scrypt: wants too much memory")
    try:
        salt, wanted = (b64decode(text + b"=" * (-len(text) % 4)) for text in match.group(4, 5))
        found = scrypt(secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=memory + 65536, dklen=len(wanted))
    except ValueError as error:
        raise _cannot(f"scrypt: {error}") from error
    return hmac.compare_digest(found, wanted)
