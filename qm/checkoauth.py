"""checkpassword-oauth: a checkpassword for tokens; it looks whether a signed token (JWT) is good, and whose it is.

Usage:   checkpassword-oauth keys issuer audience claim prog [arg ...]
Reads:   fd 3: name NUL token NUL; keys, the issuer's public keys, a file (JWKS)
Env:     QMHOME; sets USER to the claim of the token
Writes:  fd 2 (log)
As:      whoever starts it: qmailp, from userd; it becomes nobody
Exits:   1 refused; 2 no program; 111 cannot tell; after a login what prog exits with
See:     checkpassword-oauth(8), qm-users(5), qmail.md 16.5

Only signatures with a public key count (RFC 8725 3.1): a token that says how it wants to be checked is not believed.
"""

import json
import os
import time
from typing import Final

from qm import errors
from qm.errors import Permanent, Temporary
from qm.unix import chain, checking
from qm.unix.program import Argv, Env, program

RECORD_MAX: Final = 12288  # bytes
KEYS_MAX: Final = 1 << 20  # bytes of the file
LEEWAY_S: Final = 60  # how far the issuer's clock may be from ours
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "Ed25519", "EdDSA")
_PUBLIC: Final = ("RSA", "EC", "OKP")


class Expected(dict[str, object]):
    """The claims that a token must have."""

    def __init__(self, issuer: str, audience: str, claim: str) -> None:
        must = {"essential": True}
        super().__init__(iss={**must, "value": issuer}, aud={**must, "value": audience}, exp=must)
        self[claim] = self.get(claim, must)
        self.claim = claim


def whose(token: bytes, keys: object, expected: Expected, now_s: int) -> bytes:
    """Who *token* is for; raises Permanent if it is not good, Temporary for *keys* that are none."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet
    from joserfc.jwt import JWTClaimsRegistry

    if not isinstance(keys, dict) or not all(key.get("kty") in _PUBLIC for key in keys.get("keys", ())):
        raise Temporary("cannot check tokens", detail="the keys are no JWKS, or have one that is secret")
    try:
        found = KeySet.import_key_set({"keys": keys["keys"]})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Temporary("cannot check tokens", detail=f"the keys are broken: {type(error).__name__}") from error
    try:
        claims = jwt.decode(token, found, algorithms=ALGORITHMS).claims
        JWTClaimsRegistry(now=now_s, leeway=LEEWAY_S, **expected).validate(claims)  # type: ignore[arg-type]
        name = claims[expected.claim]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Permanent("login refused", detail=f"the token: {type(error).__name__}") from error
    if not isinstance(name, str) or not name or "\0" in name or name.startswith("-"):
        raise Permanent("login refused", detail="the token: a claim that is no name")
    return name.encode("utf-8", "replace")


def _keys(path: bytes) -> object:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(KEYS_MAX))
    except (OSError, ValueError) as error:
        raise Temporary("cannot check tokens", detail=f"{os.fsdecode(path)}: {error}") from error


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 6:
        return checking.MISUSE
    expected = Expected(*map(os.fsdecode, argv[2:5]))
    keys = _keys(argv[1])
    try:
        _, token, *_ = checking.credentials(RECORD_MAX)
        user = whose(token, keys, expected, int(time.time()))
    except errors.Permanent:
        return checking.REFUSED
    return chain.prepare(argv[5:], env)({**env, b"USER": user})
