"""PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), EXTERNAL (RFC 4422 appendix A) and OAUTHBEARER (RFC 7628).

Nobody acts for somebody else: an authorization identity must be the one that logs in.
"""

import re
from typing import Final

from qm.wire.saslprep import Prohibited, prepare
from qm.wire.saslstep import Bad, Conversation, Fault, Peer, Refusal, ask, ended, say
from qm.wire.userquery import AskLogin, Method, Refused

_DIGEST: Final = re.compile(rb"[0-9a-f]{32}")
_PAIR: Final = re.compile(rb"([A-Za-z]+)=([\t\n\r -~\x80-\xff]*)")  # RFC 7628 3.1
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750 2.1
_TOKEN_HEADER: Final = re.compile(rb"[ny],(?:a=([^,\x00\x01]*))?,")
INVALID_TOKEN: Final = b'{"status":"invalid_token","schemes":"bearer"}'  # RFC 7628 3.2.2
_OTHER: Final = Refusal(Fault.WRONG, b"may not act for another name")


def name_of(text: bytes) -> bytes:
    """A user's name, prepared; raises Bad."""
    try:
        name = prepare(text)
    except Prohibited as error:
        raise Bad(b"a name that nobody can have", Fault.WRONG) from error
    if not name:
        raise Bad(b"no name", Fault.WRONG)
    return name


def acts_for_another(authorization: bytes, name: bytes) -> bool:
    return bool(authorization) and name_of(authorization).lower() != name.lower()


def _password(name: bytes, secret: bytes, peer: Peer) -> AskLogin:
    if not secret or b"\0" in secret:
        raise Bad(b"no password, or one with a NUL", Fault.WRONG)
    return AskLogin(Method.PASSWORD, name, secret, b"", peer.address)


def plain(peer: Peer, initial: bytes | None) -> Conversation:
    message = (yield from say(b"")) if initial is None else initial
    fields = message.split(b"\0")
    if len(fields) != 3:
        raise Bad(b"PLAIN: not three fields")  # RFC 4616 2
    authorization, given, secret = fields
    name = name_of(given)
    if acts_for_another(authorization, name):
        return _OTHER
    return ended((yield from ask(_password(name, secret, peer))))


def login(peer: Peer, initial: bytes | None) -> Conversation:
    """No RFC has it; every client does."""
    given = initial or (yield from say(b"Username:"))
    secret = yield from say(b"Password:")
    return ended((yield from ask(_password(name_of(given), secret, peer))))


def cram_md5(peer: Peer, initial: bytes | None) -> Conversation:
    if initial is not None:
        raise Bad(b"CRAM-MD5: the client does not begin")  # RFC 4954 4
    challenge = b"<%b@%b>" % (peer.nonce, peer.host)
    response = yield from say(challenge)
    given, _, digest = response.rpartition(b" ")  # RFC 2195 2
    if not _DIGEST.fullmatch(digest):
        raise Bad(b"CRAM-MD5: not a name and a digest")
    return ended((yield from ask(AskLogin(Method.CRAM_MD5, name_of(given), digest, challenge, peer.address))))


def external(peer: Peer, initial: bytes | None) -> Conversation:
    authorization = (yield from say(b"")) if initial is None else initial
    if b"\0" in authorization:
        raise Bad(b"EXTERNAL: a NUL")
    if not peer.client:
        return Refusal(Fault.WRONG, b"no client certificate")
    name = name_of(peer.client)
    if acts_for_another(authorization, name):
        return _OTHER
    return ended((yield from ask(AskLogin(Method.EXTERNAL, name, b"", b"", peer.address))))


def oauthbearer(peer: Peer, initial: bytes | None) -> Conversation:
    message = (yield from say(b"")) if initial is None else initial
    given, token = _token(message)
    name = name_of(given) if given else b""
    answer = yield from ask(AskLogin(Method.OAUTHBEARER, name, token, b"", peer.address))
    if isinstance(answer, Refused):
        yield from say(INVALID_TOKEN)  # RFC 7628 3.2.3; the client's answer says nothing
    return ended(answer)


def _token(message: bytes) -> tuple[bytes, bytes]:
    """The name, perhaps empty, and the token (RFC 7628 3.1); raises Bad."""
    header, *pairs = message.split(b"\x01")
    found = _TOKEN_HEADER.fullmatch(header)
    if found is None or pairs[-2:] != [b"", b""]:
        raise Bad(b"OAUTHBEARER: not a header and key=value pairs")
    values: dict[bytes, bytes] = {}
    for pair in pairs[:-2]:
        match = _PAIR.fullmatch(pair)
        if match is None or match[1].lower() in values:
            raise Bad(b"OAUTHBEARER: not key=value, or a key twice")
        values[match[1].lower()] = match[2]
    bearer = _BEARER.fullmatch(values.get(b"auth", b""))
    if bearer is None:
        raise Bad(b"OAUTHBEARER: no bearer token")
    return unquoted(found[1] or b""), bearer[1]


def unquoted(name: bytes) -> bytes:
    """A name from between commas (RFC 5802 5.1, saslname); raises Bad."""
    if re.search(rb"=(?!2C|3D)", name) or b"," in name:
        raise Bad(b"a name with = or a comma that are not written as =3D and =2C")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")
