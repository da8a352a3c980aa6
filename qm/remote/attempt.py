"""One address tried: a connection, TLS as the demand wants it, a server that takes our name.

A handshake that fails leaves nothing to go on with, so what comes next on the demand's ladder has a connection of its
own.  Clear text is on the ladder only where nobody asked for TLS.
"""

from collections.abc import Callable
from typing import Final

from qm.remote import policy
from qm.remote.connection import Connection, Lost, Unreachable, connect
from qm.remote.protection import Unfit
from qm.remote.session import Session, Unserved
from qm.remote.settings import Settings
from qm.remote.tls import TlsFailed
from qm.remote.unserved import Miss
from qm.remote.words import Peer
from qm.unix.following import Tell, nobody
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import Demand, ladder

SMTPS_PORT: Final = 465  # RFC 8314 7.3: TLS before the greeting


def _session(peer: Peer, destination: Destination, settings: Settings, demand: Demand, tell: Tell) -> Session:
    """Raises Unreachable, Unserved, Lost, TlsFailed."""
    tell(b"Connecting to %b [%b] port %d..." % (peer.name, peer.address, destination.port))
    connection = Connection(connect(peer, destination.port, settings.timeouts.connect))
    ignored = policy.ignored_keywords(settings.ehloignore, destination.host)
    session = Session(connection, peer, settings.timeouts, ignored, tell)
    try:
        session.open(settings.helohost, demand, settings.tlsroots, implicit=destination.port == SMTPS_PORT)
    except (Unserved, Lost, TlsFailed):
        session.close()
        raise
    return session


def reach(
    peer: Peer,
    destination: Destination,
    settings: Settings,
    demand: Demand,
    failed: Callable[[TlsFailed], None],
    tell: Tell = nobody,
) -> Session:
    """A session with *peer*; each handshake that came to nothing is told to *failed*, the dialogue to *tell*.

    Raises Unreachable, Unserved, Lost, TlsFailed.
    """
    *others, last = ladder(demand)
    for step in others:
        try:
            return _session(peer, destination, settings, step, tell)
        except TlsFailed as error:
            failed(error)
    try:
        return _session(peer, destination, settings, last, tell)
    except TlsFailed as error:
        failed(error)
        raise


def miss(peer: Peer, error: Unreachable | Unserved | Lost | TlsFailed | Unfit) -> Miss:
    """What is to be told of an address that did not serve."""
    if isinstance(error, Unreachable):
        return Miss(peer, str(error).encode(), None, reached=False)
    if isinstance(error, Unserved):
        return Miss(peer, error.saying, error.reply, reached=True)
    if isinstance(error, Lost):
        return Miss(peer, b"Connected to %b but " + error.why + b".", None, reached=True)
    if isinstance(error, Unfit):
        return Miss(peer, error.why, None, reached=True, status=b"4.7.5")
    why = str(error).encode("ascii", "backslashreplace").replace(b"%", b"%%")
    return Miss(peer, b"Connected to %b but " + why + b".", None, reached=True, status=b"4.7.5")
