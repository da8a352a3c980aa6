"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).

The verifiers are userd's: it gives salt and iterations, also for names that nobody has, and judges the proof.
"""

import re
from base64 import b64encode
from typing import Final, NamedTuple

from qm.wire.record import Malformed
from qm.wire.saslmechanism import acts_for_another, name_of, unquoted
from qm.wire.saslstep import Bad, Conversation, Fault, Peer, Refusal, ask, ask_scram, ended, say
from qm.wire.scram import decoded
from qm.wire.userquery import AskLogin, AskScram, Later, Login, Method

NONCE_MAX: Final = 512  # characters of the client's nonce
MESSAGE_MAX: Final = 4096  # bytes of a message; with a name of 255 bytes and a nonce of NONCE_MAX it has 1500
_GS2: Final = re.compile(rb"(?:([ny])|p=([A-Za-z0-9.-]{1,64})),(?:a=([^,]*))?,")  # RFC 5802 7
_FIRST: Final = re.compile(rb"n=([^,]*),r=([!-+\--~]+)((?:,[A-Za-z]=[^,]+)*)")
_FINAL: Final = re.compile(rb"c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)((?:,[A-Za-z]=[^,]+)*),p=([A-Za-z0-9+/=]+)")


class _Opening(NamedTuple):
    header: bytes  # with its last comma
    bare: bytes
    binding: bytes  # n, y, or the type of the channel binding
    name: bytes
    nonce: bytes


def _opening(message: bytes) -> _Opening | Refusal:
    """The client's first message; raises Bad."""
    if len(message) > MESSAGE_MAX or b"\0" in message:
        raise Bad(b"SCRAM: too long, or a NUL")
    header = _GS2.match(message)
    if header is None:
        raise Bad(b"SCRAM: not a GS2 header")
    bare = message[header.end() :]
    first = _FIRST.fullmatch(bare)  # a mandatory extension (m=) would have to be understood: it does not match
    if first is None or len(first[2]) > NONCE_MAX:
        raise Bad(b"SCRAM: not a first message")
    name = name_of(unquoted(first[1]))
    if acts_for_another(unquoted(header[3] or b""), name):
        return Refusal(Fault.WRONG, b"may not act for another name")
    return _Opening(header[0], bare, header[1] or header[2], name, first[2])


def scram(peer: Peer, initial: bytes | None) -> Conversation:
    opening = _opening((yield from say(b"")) if initial is None else initial)
    if isinstance(opening, Refusal):
        return opening
    if opening.binding == b"y" and b"SCRAM-SHA-256-PLUS" in peer.offered:
        # RFC 5802 6: the client was told that we cannot bind channels, and not by us
        return Refusal(Fault.WRONG, b"SCRAM: somebody has taken -PLUS off our offer")
    if opening.binding not in (b"n", b"y"):
        raise Bad(b"SCRAM: a channel binding without -PLUS")
    return (yield from _rest(peer, opening, b""))


def scram_plus(peer: Peer, initial: bytes | None) -> Conversation:
    opening = _opening((yield from say(b"")) if initial is None else initial)
    if isinstance(opening, Refusal):
        return opening
    if opening.binding in (b"n", b"y"):
        raise Bad(b"SCRAM: -PLUS without a channel binding")
    data = peer.bindings.get(opening.binding)
    if not data:
        raise Bad(b"SCRAM: a channel binding that we do not have")
    return (yield from _rest(peer, opening, data))


def _rest(peer: Peer, opening: _Opening, binding: bytes) -> Conversation:
    """From the server's first message on; *binding* is the data that the client must have seen too."""
    given = yield from ask_scram(AskScram(opening.name))
    if isinstance(given, Later):
        return Refusal(Fault.LATER, given.why)
    nonce = opening.nonce + peer.nonce
    first = b"r=%b,s=%b,i=%d" % (nonce, given.salt, given.iterations)
    message = yield from say(first)
    final = _FINAL.fullmatch(message) if len(message) <= MESSAGE_MAX else None
    if final is None:
        raise Bad(b"SCRAM: not a final message")
    if final[1] != b64encode(opening.header + binding) or final[2] != nonce:
        return Refusal(Fault.WRONG, b"SCRAM: another channel or another nonce")  # RFC 5802 5.1
    auth_message = b",".join((opening.bare, first, message[: final.start(4) - len(b",p=")]))
    answer = yield from ask(AskLogin(Method.SCRAM_SHA_256, opening.name, _proof(final[4]), auth_message, peer.address))
    # RFC 4954 4: a reply has no room for success data, so it is a challenge, and an empty response
    if isinstance(answer, Login) and (yield from say(b"v=" + answer.signature)):
        raise Bad(b"SCRAM: more after the end")
    return ended(answer)


def _proof(text: bytes) -> bytes:
    """*text*, if it is base64 of a proof's length; raises Bad."""
    try:
        if len(decoded(text)) == 32:
            return text
    except Malformed as error:
        raise Bad(b"SCRAM: a proof that is not base64") from error
    raise Bad(b"SCRAM: a proof of another length")
