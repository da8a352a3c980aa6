"""Signed tokens: good ones, and each way to forge one."""

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from qm.checkoauth import Expected, whose
from qm.errors import Permanent, Temporary

EC = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256"})
RSA = RSAKey.generate_key(2048, {"kid": "two"})
OTHER = ECKey.generate_key("P-256", {"kid": "one"})
KEYS = KeySet([EC, RSA]).as_dict(private=False)
EXPECTED = Expected("https://id.example", "mail", "email")
NOW_S = 1_800_000_000
CLAIMS = {"iss": "https://id.example", "aud": ["web", "mail"], "exp": NOW_S + 300, "email": "ann@me.example"}


def token(claims: dict[str, object] = CLAIMS, key: ECKey | RSAKey = EC, **header: str) -> bytes:
    algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
    return jwt.encode({"alg": algorithm, "kid": str(key.kid), **header}, claims, key).encode()


def part(value: object) -> bytes:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


@pytest.mark.parametrize("key", [EC, RSA])
def test_a_good_token(key: ECKey | RSAKey) -> None:
    """A token that one of the keys has signed, for us, in time, says whose it is."""
    assert whose(token(key=key), KEYS, EXPECTED, NOW_S) == b"ann@me.example"


@pytest.mark.parametrize(
    "claims",
    [
        {**CLAIMS, "iss": "https://other.example"},
        {**CLAIMS, "aud": "web"},
        {**CLAIMS, "exp": NOW_S - 61},
        {**CLAIMS, "nbf": NOW_S + 3600},
        {**CLAIMS, "email": ""},
        {**CLAIMS, "email": ["ann@me.example"]},
        {**CLAIMS, "email": "ann\0root"},
        *({key: value for key, value in CLAIMS.items() if key != without} for without in CLAIMS),
    ],
)
def test_claims_that_do_not_count(claims: dict[str, object]) -> None:
    """Another issuer, another audience, too late, too early, a claim that is no name, and each claim left out."""
    with pytest.raises(Permanent):
        whose(token(claims), KEYS, EXPECTED, NOW_S)


def test_forged_tokens() -> None:
    """No signature, another's, one by the public key as if it were a secret, changed claims."""
    good = token()
    header, claims, signature = good.split(b".")
    secret = OctKey.import_key(json.dumps(KEYS["keys"][0]))
    hs = jwt.encode({"alg": "HS256", "kid": "one"}, CLAIMS, secret, algorithms=["HS256"]).encode()
    forged = [
        part({"alg": "none"}) + b"." + claims + b".",
        part({"alg": "none", "kid": "one"}) + b"." + claims + b"." + signature,
        token(key=OTHER),
        hs,
        header + b"." + part({**CLAIMS, "email": "root"}) + b"." + signature,
        header + b"." + claims + b".",
        good + b"x",
        b"",
        b"a.b.c",
    ]
    for one in forged:
        with pytest.raises(Permanent):
            whose(one, KEYS, EXPECTED, NOW_S)


@pytest.mark.parametrize("keys", [None, [], {}, {"keys": [{"kty": "oct", "k": "AAAA"}]}, {"keys": [{"kty": "RSA"}]}])
def test_keys_that_are_none(keys: object) -> None:
    """Keys that cannot be read, and a secret one, are trouble: nobody is refused for them, and nobody let in."""
    with pytest.raises(Temporary):
        whose(token(), keys, EXPECTED, NOW_S)


_parts = st.lists(st.binary(max_size=30).map(urlsafe_b64encode), min_size=3, max_size=3).map(b".".join)


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.binary(max_size=60), _parts))
def test_any_bytes(garbage: bytes) -> None:
    """No garbage is a token."""
    with pytest.raises(Permanent):
        whose(garbage, KEYS, EXPECTED, NOW_S)
