"""Log in at a relay: which mechanism, the exchange, and what a failure means (RFC 4954).

Whatever the relay says, a failure is temporary: the mail is not to blame.  What we have said to it is in no text, not
even where it says that back to us.
"""

import os
from base64 import b64encode
from collections.abc import Callable
from typing import Final

from qm.wire.replies import KEEP_MAX, Reply
from qm.wire.saslclient import Channel, Exchange, Failed, choose
from qm.wire.smtpauth import Guard, Login
from qm.wire.smtpclient import GO_ON, Client, State

_DONE: Final = 235
_NONCE_BYTES: Final = 18


class NotLoggedIn(Exception):
    """The text goes after ``Connected to 1.2.3.4 but``.

    *reply* is what the relay said, if that may be told; *refused*: the login itself, so that another of the relay's
    addresses would say the same.  *inside*: the relay waits for the next line of the exchange.
    """

    def __init__(self, why: str, reply: Reply | None = None, *, refused: bool, inside: bool = False) -> None:
        super().__init__(why)
        self.reply = reply
        self.refused = refused
        self.inside = inside


class _Said:
    """Everything secret that the relay has been told, to know it again."""

    def __init__(self, login: Login) -> None:
        self._texts = {login.password, b64encode(login.password)}

    def add(self, line: bytes) -> None:
        if len(line) > 1:
            self._texts.add(line)

    def is_in(self, reply: Reply) -> bool:
        shown = reply.raw, reply.one_line()
        return any(text in part for text in self._texts for part in shown)


def log_in(client: Client, answer: Callable[[], Reply], login: Login, channel: Channel, *, protected: bool) -> None:
    """Raises NotLoggedIn; the session is then of no use.  *answer* gives the next reply."""
    mechanism = choose(channel, readable=protected or login.guard is Guard.PLAIN)
    if mechanism is None:
        raise NotLoggedIn(_no_mechanism(channel, protected=protected), refused=False)
    said = _Said(login)
    nonce = os.urandom(_NONCE_BYTES).hex().encode()
    try:
        exchange = Exchange(mechanism, login, channel, nonce)
        initial = None if exchange.initial is None else b64encode(exchange.initial) or b"="
        said.add(initial or b"")
        client.auth(mechanism, initial)
        while (reply := answer()).code == GO_ON:
            line = exchange.respond(_challenge(reply))
            said.add(line)
            client.respond(line)
    except Failed as error:
        raise NotLoggedIn(f"{error} ({mechanism.decode()})", refused=True, inside=client.state is State.AUTH) from error
    if reply.code != _DONE:
        why = f"it did not take our login ({mechanism.decode()})"
        raise NotLoggedIn(why, None if said.is_in(reply) else reply, refused=reply.permanent)
    if not exchange.over:
        raise NotLoggedIn(f"it took our login without proof that it knows us ({mechanism.decode()})", refused=True)


def _no_mechanism(channel: Channel, *, protected: bool) -> str:
    if not channel.offered:
        return "it takes no logins"
    return "it offers no way to log in that I use " + ("under TLS" if protected else "without TLS")


def _challenge(reply: Reply) -> bytes:
    """The one line of a 334; raises Failed."""
    line = reply.raw.rstrip(b"\r\n")
    if b"\n" in line or len(reply.raw) >= KEEP_MAX:
        raise Failed("it sent a challenge that is too long")
    return line[4:]
