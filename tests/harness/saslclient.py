"""A client of SASL for tests, whose server is an Exchange of ours that asks a real userd."""

import hmac
import os
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, sha256

from qm.unix.userclient import UserClient
from qm.wire.sasl import Challenge, Done, Exchange, Fault, Peer, Refusal, Step, mechanisms
from qm.wire.userquery import AskLogin, AskScram, LoginAnswer, Method

BOUND = {b"tls-server-end-point": b"a certificate's hash"}
THERE = b"203.0.113.5"


def guess(ask: UserClient, secret: bytes, name: bytes = b"ann", address: bytes = THERE) -> LoginAnswer:
    return ask.answer(AskLogin(Method.PASSWORD, name, secret, b"", address))


class Sasl:
    """A client of SASL whose server is an Exchange that asks a real userd."""

    def __init__(self, ask: UserClient, mechanism: bytes, *, client: bytes = b"", address: bytes = THERE) -> None:
        stored = ask.mechanisms()
        offered = mechanisms(stored, encrypted=True, clear=False, bindings=BOUND, client=client)
        self.asked: list[AskLogin] = []
        self._ask = ask
        self._empty = b"="  # as an initial response (RFC 4954 4)
        self._nonce = os.urandom(16).hex().encode()
        self.exchange = Exchange(mechanism, Peer(address, b"mx.example", self._nonce, offered, BOUND, client))

    def say(self, line: bytes | None) -> Step:
        step = self.exchange.receive(None if line is None else b64encode(line) or self._empty)
        self._empty = b""
        while isinstance(step, AskLogin | AskScram):
            if isinstance(step, AskScram):
                step = self.exchange.answered(self._ask.answer(step))
            else:
                self.asked.append(step)
                step = self.exchange.answered(self._ask.answer(step))
        return step


def scram_login(sasl: Sasl, secret: bytes, name: bytes = b"ann", header: bytes = b"n,,", binding: bytes = b"") -> Step:
    """RFC 5802's client; it checks our signature."""
    first = b"n=%b,r=clientnonce" % name
    step = sasl.say(header + first)
    assert isinstance(step, Challenge), step
    server_first = b64decode(step.line)
    nonce, salt, iterations = (part[2:] for part in server_first.split(b","))
    final = b"c=%b,r=%b" % (b64encode(header + binding), nonce)
    message = b",".join((first, server_first, final))
    salted = pbkdf2_hmac("sha256", secret, b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(sha256(client_key).digest(), message, "sha256")
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    step = sasl.say(final + b",p=" + b64encode(proof))
    if isinstance(step, Challenge):
        expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        assert b64decode(step.line) == b"v=" + b64encode(expected)
        step = sasl.say(b"")
    return step


def name_of(step: Step) -> bytes:
    assert isinstance(step, Done), step
    return step.login.name


def fault(step: Step) -> Fault:
    assert isinstance(step, Refusal), step
    return step.fault
