"""What qm-tlsd is asked and what it answers (docs/INTERNALS.md 1.12): both sides of tls/socket and of the stream.

On tls/socket a record asks whether TLS can be had (answered yes or no), or, with the network and one end of a stream as
its descriptors, for a handshake.  That is answered on the stream itself: first one framed record, Facts or Sorry, then
the peer's bytes in clear.
"""

from binascii import hexlify, unhexlify
from typing import Final, NamedTuple

from qm.wire.record import Malformed, number, pack, unpack

YES: Final = b"yes\0"
NO: Final = b"no\0"
FRAME: Final = 2  # bytes of a length, the most significant first
FRAME_MAX: Final = 8192  # of a framed record
SAY_MAX: Final = 512  # bytes in clear before the handshake: one reply line (RFC 5321 4.5.3.1.5)
TIMEOUT_MAX_MS: Final = 3_600_000
_READY: Final = b"ready\0"
_SERVE: Final = b"serve"
_FACTS: Final = b"facts"
_SORRY: Final = b"sorry"
_BITS_MAX: Final = 65536

Bindings = tuple[tuple[bytes, bytes], ...]  # channel bindings (RFC 5056): type, value


class AskReady(NamedTuple):
    """Can a handshake be had?"""


class Serve(NamedTuple):
    """Say *say* in clear, shake hands for *protocol* (an ALPN name) within the time, then pass bytes on."""

    say: bytes
    protocol: bytes
    timeout_ms: int


class Facts(NamedTuple):
    """What the peer and we have agreed on."""

    version: bytes  # TLSv1.3
    cipher: bytes  # TLS_AES_256_GCM_SHA384
    bits: int
    sni: bytes  # the name that the client called us by; empty if it did not
    client: bytes  # the e-mail address or name in a client certificate that has been verified; or empty
    bindings: Bindings


class Sorry(NamedTuple):
    """There will be no TLS; unless *said*, nothing has been written to the peer."""

    said: bool
    why: bytes


def pack_question(question: AskReady | Serve) -> bytes:
    if isinstance(question, AskReady):
        return _READY
    return pack(_SERVE, question.say, question.protocol, b"%d" % question.timeout_ms)


def unpack_question(record: bytes) -> AskReady | Serve:
    """Raises Malformed."""
    if record == _READY:
        return AskReady()
    kind, say, protocol, timeout = unpack(record, 4)
    if kind != _SERVE or len(say) > SAY_MAX:
        raise Malformed("not a question")
    return Serve(say, protocol, number(timeout, TIMEOUT_MAX_MS))


def frame(answer: Facts | Sorry) -> bytes:
    """What goes before the peer's bytes."""
    if isinstance(answer, Facts):
        fixed = (answer.version, answer.cipher, b"%d" % answer.bits, answer.sni, answer.client)
        record = pack(_FACTS, *fixed, show_bindings(answer.bindings))
    else:
        record = pack(_SORRY, b"%d" % answer.said, answer.why)
    return len(record).to_bytes(FRAME, "big") + record


def frame_size(head: bytes) -> int:
    """How long the record is that *head*, FRAME bytes, stands before; raises Malformed."""
    size = int.from_bytes(head, "big")
    if not 0 < size <= FRAME_MAX:
        raise Malformed("no record has that size")
    return size


def unpack_answer(record: bytes) -> Facts | Sorry:
    """Raises Malformed."""
    if record.startswith(_SORRY + b"\0"):
        _, said, why = unpack(record, 3)
        return Sorry(number(said, 1) > 0, why)
    kind, version, cipher, bits, sni, client, bindings = unpack(record, 7)
    if kind != _FACTS:
        raise Malformed("not an answer")
    return Facts(version, cipher, number(bits, _BITS_MAX), sni, client, read_bindings(bindings))


def show_bindings(bindings: Bindings) -> bytes:
    """*bindings* as a word: ``type:hex,type:hex``, as it stands in TLSBINDINGS too."""
    return b",".join(kind + b":" + hexlify(value) for kind, value in bindings)


def read_bindings(word: bytes) -> Bindings:
    """What `show_bindings` wrote; raises Malformed."""
    found = []
    for item in word.split(b",") if word else ():
        kind, colon, value = item.partition(b":")
        try:
            found.append((kind, unhexlify(value)))
        except ValueError as error:
            raise Malformed("not channel bindings") from error
        if not (kind and colon and value):
            raise Malformed("not channel bindings")
    return tuple(found)
