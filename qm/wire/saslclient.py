"""SASL, the client's side: one attempt to log in at a server that is a stranger, as a passive machine (RFC 4422).

    exchange = Exchange(mechanism, login, channel, nonce)
    exchange.initial                 the initial response, or None if the server begins
    exchange.respond(challenge)      the next response; raises Failed
    exchange.over                    a success that is said now counts

Each mechanism has a fixed number of steps, so an exchange ends whatever the server asks.  SCRAM is not over before the
server has proved that it knows the password, too.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Generator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from qm.wire import saslprep, scram
from qm.wire.record import Malformed
from qm.wire.scram import ITERATIONS_MAX, ITERATIONS_MIN, SALT_MAX
from qm.wire.smtpauth import Login

CHALLENGE_MAX: Final = 4096  # bytes
BINDING: Final = b"tls-server-end-point"  # RFC 5929 4: the one that Python can give us for TLS 1.3
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})
_FIRST: Final = re.compile(rb"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,6})((?:,[A-Za-z]=[^,]+)*)")
_FINAL: Final = re.compile(rb"v=([A-Za-z0-9+/=]+)((?:,[A-Za-z]=[^,]+)*)")


class Failed(Exception):
    """The exchange cannot go on; the text goes after ``Connected to 1.2.3.4 but``."""


class Channel(NamedTuple):
    """What the server offers, on which connection."""

    offered: Collection[bytes]  # mechanisms, in upper case
    bindings: Mapping[bytes, bytes] = _NOTHING  # channel bindings by their type (RFC 5056)


class _Say(NamedTuple):
    text: bytes | None  # None, at first: the server begins
    last: bool = False  # a success that follows counts


_Talk = Generator[_Say, bytes, None]


def _plain(login: Login, channel: Channel, nonce: bytes) -> _Talk:
    yield _Say(b"\0%b\0%b" % (login.name, login.password), last=True)  # RFC 4616 2


def _login(login: Login, channel: Channel, nonce: bytes) -> _Talk:
    yield _Say(None)
    yield _Say(login.name)
    yield _Say(login.password, last=True)


def _cram_md5(login: Login, channel: Channel, nonce: bytes) -> _Talk:
    challenge = yield _Say(None)
    digest = hmac.digest(login.password, challenge, "md5").hex().encode()
    yield _Say(b"%b %b" % (login.name, digest), last=True)  # RFC 2195 2


def _scram(login: Login, channel: Channel, nonce: bytes) -> _Talk:
    could_bind = BINDING in channel.bindings
    return _scram_with(login, b"y,," if could_bind else b"n,,", b"", nonce)  # RFC 5802 6: y tells who takes -PLUS away


def _scram_plus(login: Login, channel: Channel, nonce: bytes) -> _Talk:
    return _scram_with(login, b"p=%b,," % BINDING, channel.bindings[BINDING], nonce)


def _scram_with(login: Login, header: bytes, binding: bytes, nonce: bytes) -> _Talk:
    """RFC 5802 3, 5, 7; RFC 7677."""
    name = _prepared(login.name).replace(b"=", b"=3D").replace(b",", b"=2C")
    bare = b"n=%b,r=%b" % (name, nonce)
    first = yield _Say(header + bare)
    joint, salt, iterations = _server_first(first, nonce)
    final = b"c=%b,r=%b" % (b64encode(header + binding), joint)
    message = b",".join((bare, first, final))
    proof, signature = scram.proof(saslprep.password(login.password), salt, iterations, message)
    said = _FINAL.fullmatch((yield _Say(b"%b,p=%b" % (final, proof))))
    if said is None or said[1] != signature:
        raise Failed("it did not prove that it knows the password")
    yield _Say(b"", last=True)  # RFC 4954 4: the success follows


def _prepared(name: bytes) -> bytes:
    try:
        return saslprep.prepare(name)
    except saslprep.Prohibited as error:
        raise Failed("the name in control/smtpauth is none for SCRAM") from error


def _server_first(first: bytes, nonce: bytes) -> tuple[bytes, bytes, int]:
    """Nonce, salt and iterations."""
    said = _FIRST.fullmatch(first)
    if said is None:
        raise Failed("it sent a bad challenge")
    try:
        salt = scram.decoded(said[2])
    except Malformed as error:
        raise Failed("it sent a bad challenge") from error
    if not said[1].startswith(nonce) or len(said[1]) == len(nonce):
        raise Failed("it answered somebody else's challenge")
    if not 0 < len(salt) <= SALT_MAX or not ITERATIONS_MIN <= int(said[3]) <= ITERATIONS_MAX:
        raise Failed(f"it wants fewer than {ITERATIONS_MIN} or more than {ITERATIONS_MAX} iterations")  # RFC 7677 4
    return said[1], salt, int(said[3])


_MECHANISMS: Final[dict[bytes, Callable[[Login, Channel, bytes], _Talk]]] = {  # the best first
    b"SCRAM-SHA-256-PLUS": _scram_plus,
    b"SCRAM-SHA-256": _scram,
    b"CRAM-MD5": _cram_md5,
    b"PLAIN": _plain,
    b"LOGIN": _login,
}
_READABLE: Final = frozenset((b"PLAIN", b"LOGIN"))  # who listens has the password


def choose(channel: Channel, *, readable: bool) -> bytes | None:
    """The best mechanism that both sides have; PLAIN and LOGIN only if *readable* is no harm."""
    for name in _MECHANISMS:
        usable = readable if name in _READABLE else name != b"SCRAM-SHA-256-PLUS" or BINDING in channel.bindings
        if usable and name in channel.offered:
            return name
    return None


class Exchange:
    """One attempt; *nonce* is new each time, of printable characters but the comma."""

    def __init__(self, mechanism: bytes, login: Login, channel: Channel, nonce: bytes) -> None:
        """Raises Failed."""
        self._talk = _MECHANISMS[mechanism](login, channel, nonce)
        said = next(self._talk)
        self.initial = said.text
        self.over = said.last

    def respond(self, challenge: bytes) -> bytes:
        """What to say to *challenge*; both as they are in base64 on the wire.  Raises Failed."""
        if self.over:
            raise Failed("it asks for more than the mechanism has")
        try:
            text = scram.decoded(challenge) if len(challenge) <= CHALLENGE_MAX else None
        except Malformed as error:
            raise Failed("it sent a challenge that is not base64") from error
        if text is None:
            raise Failed(f"it sent a challenge of more than {CHALLENGE_MAX} bytes")
        said = self._talk.send(text)
        self.over = said.last
        return b64encode(said.text or b"")
