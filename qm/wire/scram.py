"""SCRAM-SHA-256's arithmetic (RFC 5802 section 3, RFC 7677): verifiers, proofs and signatures.

A verifier is what a server stores: it tells whether a proof is right, and is no password; but who has it can guess
passwords, ITERATIONS hashes a guess.  It is written as Dovecot writes it, ``iterations,salt,stored key,server key``,
the last three in base64.
"""

import hmac
import re
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, sha256
from typing import Final, NamedTuple

from qm.wire.record import Malformed, number

ITERATIONS: Final = 65536  # RFC 7677 section 4 asks for 4096 or more; 25 ms at 2.5 GHz, for a client too
ITERATIONS_MIN: Final = 4096
ITERATIONS_MAX: Final = 1_000_000
SALT_BYTES: Final = 16
SALT_MAX: Final = 64
KEY_BYTES: Final = 32  # of SHA-256
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Verifier(NamedTuple):
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Verifier({self.iterations})"


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def verifier(secret: bytes, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """What to store for *secret*, which has been prepared (RFC 4013)."""
    salted = pbkdf2_hmac("sha256", secret, salt, iterations)
    stored_key = sha256(_hmac(salted, b"Client Key")).digest()
    return Verifier(iterations, salt, stored_key, _hmac(salted, b"Server Key"))


def proves(stored_key: bytes, auth_message: bytes, proof: bytes) -> bool:
    """Whether *proof*, of KEY_BYTES, was made for *auth_message* by who has the password of *stored_key*."""
    signature = _hmac(stored_key, auth_message)
    client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    return hmac.compare_digest(sha256(client_key).digest(), stored_key)


def signature(server_key: bytes, auth_message: bytes) -> bytes:
    """What tells the client that we know the verifier, in base64."""
    return b64encode(_hmac(server_key, auth_message))


def made_up_salt(key: bytes, name: bytes) -> bytes:
    """The salt of *name*, which depends on nothing but our secret *key*: whether anybody has the name does not show."""
    return hmac.digest(key, name, "sha256")[:SALT_BYTES]


def text(verifier: Verifier) -> bytes:
    """*verifier* as it stands in users/passwd."""
    return b",".join((b"%d" % verifier.iterations, *map(b64encode, verifier[1:])))


def parse(text: bytes) -> Verifier:
    """The reverse; raises Malformed."""
    fields = text.split(b",")
    if len(fields) != 4:
        raise Malformed("SCRAM: not iterations,salt,stored key,server key")
    iterations = number(fields[0], ITERATIONS_MAX)
    salt, stored_key, server_key = map(decoded, fields[1:])
    if iterations < ITERATIONS_MIN:
        raise Malformed(f"SCRAM: fewer than {ITERATIONS_MIN} iterations")
    if not 0 < len(salt) <= SALT_MAX or len(stored_key) != KEY_BYTES or len(server_key) != KEY_BYTES:
        raise Malformed("SCRAM: salt or keys have another length")
    return Verifier(iterations, salt, stored_key, server_key)


def decoded(text: bytes) -> bytes:
    """Base64 to the letter of RFC 4648, which b64decode does not insist on; raises Malformed."""
    if not _BASE64.fullmatch(text):
        raise Malformed("not base64")
    return b64decode(text)


def proof(secret: bytes, salt: bytes, iterations: int, auth_message: bytes) -> tuple[bytes, bytes]:
    """What a client says who has *secret*, which has been prepared, and what the server must say then: in base64."""
    salted = pbkdf2_hmac("sha256", secret, salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    signed = _hmac(sha256(client_key).digest(), auth_message)
    proof = bytes(one ^ other for one, other in zip(client_key, signed, strict=True))
    return b64encode(proof), signature(_hmac(salted, b"Server Key"), auth_message)
