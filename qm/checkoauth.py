"""checkpassword-oauth: a checkpassword for tokens; it looks whether a token is good, and whose it is.

Usage:   checkpassword-oauth keys issuer audience claim prog [arg ...]
Reads:   fd 3: name NUL token NUL; keys, a file: the issuer's public keys (JWKS), or where to ask it; control/tlsroots
Env:     QMHOME; sets USER to the claim of the token
Writes:  fd 2 (log)
Asks:    the issuer, once per token (RFC 7662), if keys says where: by HTTPS, on this machine also by HTTP
As:      whoever starts it: qmailp, from userd; it becomes nobody
Exits:   1 refused; 2 no program; 111 cannot tell; after a login what prog exits with
See:     checkpassword-oauth(8), qm-users(5), qmail.md 16.5

Only signatures with a public key count (RFC 8725 3.1): a token that says how it wants to be checked is not believed.
"""

import json
import os
import stat
import time
from base64 import b64encode
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from qm import errors
from qm.disk.control import Controls
from qm.errors import Permanent, Temporary
from qm.unix import chain, checking
from qm.unix.program import Argv, Env, program

RECORD_MAX: Final = 12288  # bytes
KEYS_MAX: Final = 1 << 20  # bytes of the file
ANSWER_MAX: Final = 65536  # bytes of what the issuer answers
ASK_S: Final = 10.0  # the issuer's time; below control/timeoutlogin
LEEWAY_S: Final = 60  # how far the issuer's clock may be from ours
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "Ed25519", "EdDSA")
_PUBLIC: Final = ("RSA", "EC", "OKP")


class Expected(dict[str, object]):
    """The claims that a token must have; what an issuer that was asked says of its end may be left out."""

    def __init__(self, issuer: str, audience: str, claim: str) -> None:
        must = {"essential": True}
        super().__init__(iss={**must, "value": issuer}, aud={**must, "value": audience}, exp=must)
        self[claim] = self.get(claim, must)
        self.claim = claim

    def without_end(self) -> "Expected":
        copy = Expected.__new__(Expected)
        copy.update({name: rule for name, rule in self.items() if name != "exp"})
        copy.claim = self.claim
        return copy


class Endpoint(NamedTuple):
    """Where the issuer says what it knows of a token (RFC 7662), and who we are there."""

    url: str
    client: str
    secret: str

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.client!r})"  # the secret is for nobody's log

    @property
    def authorization(self) -> str:
        """RFC 6749 2.3.1; a blank as %20, which who takes + for itself reads too"""
        words = f"{quote(self.client, safe='')}:{quote(self.secret, safe='')}"
        return "Basic " + b64encode(words.encode("ascii")).decode("ascii")


def whose(token: bytes, keys: object, expected: Expected, now_s: int) -> bytes:
    """Who *token* is for; raises Permanent if it is not good, Temporary for *keys* that are none."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    if not isinstance(keys, dict) or not all(key.get("kty") in _PUBLIC for key in keys.get("keys", ())):
        raise Temporary("cannot check tokens", detail="the keys are no JWKS, or have one that is secret")
    try:
        found = KeySet.import_key_set({"keys": keys["keys"]})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Temporary("cannot check tokens", detail=f"the keys are broken: {type(error).__name__}") from error
    try:
        claims = jwt.decode(token, found, algorithms=ALGORITHMS).claims
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Permanent("login refused", detail=f"the token: {type(error).__name__}") from error
    return named(claims, expected, now_s)


def named(claims: dict[str, object], expected: Expected, now_s: int) -> bytes:
    """Who *claims*, which are the issuer's, name; raises Permanent if they are not what is expected."""
    from joserfc.errors import JoseError
    from joserfc.jwt import JWTClaimsRegistry

    try:
        JWTClaimsRegistry(now=now_s, leeway=LEEWAY_S, **expected).validate(claims)  # type: ignore[arg-type]
        name = claims[expected.claim]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Permanent("login refused", detail=f"the token: {type(error).__name__}") from error
    if not isinstance(name, str) or not name or "\0" in name or name.startswith("-"):
        raise Permanent("login refused", detail="the token: a claim that is no name")
    return name.encode("utf-8", "replace")


def _trouble(why: str) -> Temporary:
    return Temporary("cannot check tokens", detail=why)


def endpoint(told: dict[str, object]) -> Endpoint:
    """What the file says of it; raises Temporary."""
    fields = [told.get(name) for name in ("introspection_endpoint", "client_id", "client_secret")]
    words = [field for field in fields if isinstance(field, str) and field.isascii() and field.isprintable() and field]
    if len(words) != len(fields):
        raise _trouble("introspection_endpoint, client_id and client_secret must be texts in ASCII")
    found = Endpoint(*words)
    try:
        parts = urlsplit(found.url)
        port = parts.port
    except ValueError as error:
        raise _trouble("introspection_endpoint is no URL") from error
    if not parts.hostname or " " in found.url or port == 0 or parts.username is not None:
        raise _trouble("introspection_endpoint is no URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and checking.is_here(parts.hostname)):
        raise _trouble("introspection_endpoint must be https, or on this machine")
    return found


def ask(where: Endpoint, token: bytes, roots: bytes) -> dict[str, object]:
    """What the issuer says of *token* (RFC 7662 2.2); raises Permanent if it is not good, Temporary."""
    from qm.unix import https, tlscontext

    parts = urlsplit(where.url)
    host, path = parts.hostname or "", parts.path or "/"
    form = urlencode({"token": token, "token_type_hint": "access_token"})
    try:
        context = tlscontext.named(tlscontext.roots(roots)) if parts.scheme == "https" else None
        server = https.Server(host, parts.port or (443 if context else 80), host, context)
        path += f"?{parts.query}" if parts.query else ""
        kind, body = https.post(server, path, form, where.authorization, ASK_S)
        answer = json.loads(body) if kind == "application/json" and len(body) <= ANSWER_MAX else None
    except (https.NotFetched, OSError, ValueError, RecursionError) as error:
        raise _trouble(f"{host}: {error}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise _trouble(f"{host}: the answer is not that of RFC 7662")
    if not answer["active"]:
        raise Permanent("login refused", detail="the token: not active")
    return answer


def _described(path: bytes) -> dict[str, object]:
    """What the file says; raises Temporary."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(KEYS_MAX))
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError, RecursionError) as error:
        raise _trouble(f"{os.fsdecode(path)}: {error}") from error
    if not isinstance(found, dict):
        raise _trouble(f"{os.fsdecode(path)}: no JSON object")
    if "client_secret" in found and mode & stat.S_IROTH:
        raise _trouble(f"{os.fsdecode(path)}: others may read its secret; chmod o-r")
    return found


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 6:
        return checking.MISUSE
    expected = Expected(*map(os.fsdecode, argv[2:5]))
    found, now_s = _described(argv[1]), int(time.time())
    try:
        _, token, *_ = checking.credentials(RECORD_MAX)
        if "introspection_endpoint" in found:
            claims = ask(endpoint(found), token, Controls(("tlsroots",)).line("tlsroots"))
            user = named(claims, expected.without_end(), now_s)
        else:
            user = whose(token, found, expected, now_s)
    except errors.Permanent:
        return checking.REFUSED
    return chain.prepare(argv[5:], env)({**env, b"USER": user})
