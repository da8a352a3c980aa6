"""One address tried: a connection, TLS as the demand wants it, a server that takes our name.

A handshake that fails leaves nothing to go on with, so what comes next on the demand's ladder has a connection of its
own.  Clear text is on the ladder only where nobody asked for TLS.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from qm.remote import policy
from qm.remote.connection import Connection, Lost, Unreachable, connect
from qm.remote.login import NotLoggedIn
from qm.remote.protection import Unfit
from qm.remote.session import Session
from qm.remote.settings import Settings
from qm.remote.talk import Manner, Talk, Unserved
from qm.remote.tls import TlsFailed
from qm.remote.unserved import Miss
from qm.remote.words import Peer
from qm.unix.following import Tell, nobody
from qm.wire.smtpauth import Login
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import Demand, ladder

Trouble = Unreachable | Unserved | Lost | TlsFailed | NotLoggedIn
TROUBLE: Final = (Unreachable, Unserved, Lost, TlsFailed, NotLoggedIn)


class Aim(NamedTuple):
    """Where to, who we are there, and who watches."""

    destination: Destination
    login: Login | None
    tell: Tell = nobody


def _session(peer: Peer, aim: Aim, settings: Settings, demand: Demand) -> Session:
    """Raises those of TROUBLE."""
    destination = aim.destination
    aim.tell(b"Connecting to %b [%b] port %d..." % (peer.name, peer.address, destination.port))
    connection = Connection(connect(peer, destination, settings.timeouts.connect))
    ignored = policy.ignored_keywords(settings.ehloignore, destination.host)
    manner = Manner(settings.helohost, demand, settings.tlsroots, destination.tls, destination.lmtp, aim.login)
    return Session(Talk(connection, peer, settings.timeouts, ignored, aim.tell), manner)


def reach(peer: Peer, aim: Aim, settings: Settings, demand: Demand, failed: Callable[[TlsFailed], None]) -> Session:
    """A session with *peer*; each handshake that came to nothing is told to *failed*.

    Raises those of TROUBLE.
    """
    *others, last = ladder(demand)
    for step in others:
        try:
            return _session(peer, aim, settings, step)
        except TlsFailed as error:
            failed(error)
    try:
        return _session(peer, aim, settings, last)
    except TlsFailed as error:
        failed(error)
        raise


def miss(peer: Peer, error: Trouble | Unfit) -> Miss:
    """What is to be told of an address that did not serve."""
    if isinstance(error, Unreachable):
        return Miss(peer, str(error).encode(), None, reached=False)
    if isinstance(error, Unserved):
        return Miss(peer, error.saying, error.reply, reached=True)
    if isinstance(error, Lost):
        return Miss(peer, b"Connected to %b but " + error.why + b".", None, reached=True)
    if isinstance(error, Unfit):
        return Miss(peer, error.why, None, reached=True, status=b"4.7.5")
    if isinstance(error, NotLoggedIn) and error.reply is not None:
        return Miss(peer, b"Connected to %b but " + str(error).encode() + b".", error.reply, reached=True)
    why = str(error).encode("ascii", "backslashreplace").replace(b"%", b"%%")
    status = b"4.7.8" if isinstance(error, NotLoggedIn) else b"4.7.5"
    return Miss(peer, b"Connected to %b but " + why + b".", None, reached=True, status=status)
