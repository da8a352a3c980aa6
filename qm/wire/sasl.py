"""SASL, the server's side (RFC 4422): one attempt to log in, as a passive machine that SMTP and POP3 share.

    exchange = Exchange(mechanism, peer)
    step = exchange.receive(initial)      the initial response as it came, in base64; None if there was none
    Challenge(line)                       send it (after "334 " or "+ "), then receive(the client's next line)
    AskLogin, AskScram                    ask userd (UserClient.answer), then answered(what it says)
    Done(login), Refusal(fault, why, delay_s)       the end

Base64 framing, ``=``, ``*`` and limits are in here (RFC 4954 section 4, RFC 5034 section 4).  The mechanisms are in
saslmechanism and saslscram.  A secret is in no repr and in no Refusal.
"""

from base64 import b64encode
from collections.abc import Callable, Collection
from typing import Final

from qm.wire import saslmechanism, saslscram
from qm.wire.record import Malformed
from qm.wire.saslstep import NONCE_MIN, Bad, Challenge, Conversation, Done, End, Fault, Peer, Refusal, Said, Say
from qm.wire.scram import decoded
from qm.wire.userquery import AskLogin, AskScram, LoginAnswer, ScramAnswer

__all__ = [
    "LINE_MAX", "AskLogin", "AskScram", "Challenge", "Done", "Exchange", "Fault", "Peer", "Refusal", "Step",
    "mechanisms",
]  # fmt: skip

LINE_MAX: Final = 12288  # bytes of base64 (RFC 4954 section 4)

Step = Challenge | AskLogin | AskScram | End

_MECHANISMS: Final[dict[bytes, Callable[[Peer, bytes | None], Conversation]]] = {  # the best first
    b"SCRAM-SHA-256-PLUS": saslscram.scram_plus,
    b"SCRAM-SHA-256": saslscram.scram,
    b"OAUTHBEARER": saslmechanism.oauthbearer,
    b"EXTERNAL": saslmechanism.external,
    b"CRAM-MD5": saslmechanism.cram_md5,
    b"PLAIN": saslmechanism.plain,
    b"LOGIN": saslmechanism.login,
}


def mechanisms(
    stored: Collection[bytes], *, encrypted: bool, clear: bool, bindings: Collection[bytes], client: bytes
) -> tuple[bytes, ...]:
    """What to offer, the best first: of what userd can serve (*stored*), what this connection is fit for.

    *encrypted*: under TLS, with these channel *bindings* and perhaps a verified *client* certificate.  In clear nothing
    is offered but with *clear* (control/authclear), and never a token or a certificate.
    """
    fit = set(stored) - {b"SCRAM-SHA-256-PLUS"}
    if not (encrypted and client):
        fit.discard(b"EXTERNAL")
    if encrypted and bindings and b"SCRAM-SHA-256" in fit:
        fit.add(b"SCRAM-SHA-256-PLUS")
    if not encrypted:
        fit.discard(b"OAUTHBEARER")  # RFC 7628 3: TLS is a must
        fit = fit if clear else set()
    return tuple(name for name in _MECHANISMS if name in fit)


class Exchange:
    """One attempt; *mechanism* as the client wrote it.  *name* is who wants to log in, b"" as long as nobody knows."""

    def __init__(self, mechanism: bytes, peer: Peer) -> None:
        if len(peer.nonce) < NONCE_MIN or not peer.nonce.isalnum():
            raise ValueError("a nonce is new each time, long, and of hexadecimal digits")
        self.mechanism = mechanism.upper()
        self.name = b""
        self._peer = peer
        self._conversation: Conversation | None = None
        self._waits_for_client = True
        self._over = False

    def receive(self, line: bytes | None) -> Step:
        """The client's next line without its line end; the first time the initial response, or None."""
        assert self._waits_for_client, "userd's answer must come first"
        assert not self._over
        try:
            if self._conversation is not None:
                return self._go_on(_response(line or b""))
            if self.mechanism not in _MECHANISMS or self.mechanism not in self._peer.offered:
                raise Bad(b"mechanism not offered", Fault.UNKNOWN)
            initial = None if line is None else b"" if line == b"=" else _response(line)  # RFC 4954 4
            self._conversation = _MECHANISMS[self.mechanism](self._peer, initial)
            return self._go_on(None)
        except Bad as error:
            return self._end(Refusal(error.fault, error.why))

    def answered(self, answer: LoginAnswer | ScramAnswer) -> Step:
        """What userd said to the question."""
        assert not self._waits_for_client, "nothing was asked"
        try:
            return self._go_on(answer)
        except Bad as error:
            return self._end(Refusal(error.fault, error.why))

    def _go_on(self, said: Said | None) -> Step:
        assert self._conversation is not None
        try:
            step = next(self._conversation) if said is None else self._conversation.send(said)
        except StopIteration as stop:
            end: End = stop.value
            return self._end(end)
        self._waits_for_client = isinstance(step, Say)
        if isinstance(step, Say):
            return Challenge(b64encode(step.text))
        self.name = step.name
        return step

    def _end(self, end: End) -> End:
        self._over = True
        self._waits_for_client = True
        return end


def _response(line: bytes) -> bytes:
    """What a line of the client's says; raises Bad."""
    if line == b"*":
        raise Bad(b"cancelled by the client", Fault.CANCELLED)
    if len(line) > LINE_MAX:
        raise Bad(b"a line too long", Fault.TOO_LONG)
    try:
        return decoded(line)
    except Malformed as error:
        raise Bad(b"not base64") from error
