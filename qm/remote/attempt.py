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
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import Demand, ladder

_UNWILLING: Final = b"%b does not offer REQUIRETLS. REQUIRETLS support required."  # RFC 8689 4.2.1
_REQUIRED: Final = b" The message requires TLS."
SMTPS_PORT: Final = 465  # RFC 8314 7.3: TLS before the greeting


class Unwilling(Exception):
    """It is protected as it must be, and does not promise to protect the message on its way from there."""


def _session(peer: Peer, destination: Destination, settings: Settings, demand: Demand) -> Session:
    """Raises Unreachable, Unserved, Lost, TlsFailed."""
    connection = Connection(connect(peer, destination.port, settings.timeouts.connect))
    ignored = policy.ignored_keywords(settings.ehloignore, destination.host)
    session = Session(connection, peer, settings.timeouts, ignored)
    try:
        session.open(settings.helohost, demand, settings.tlsroots, implicit=destination.port == SMTPS_PORT)
    except (Unserved, Lost, TlsFailed):
        session.close()
        raise
    return session


def reach(
    peer: Peer, destination: Destination, settings: Settings, demand: Demand, failed: Callable[[TlsFailed], None]
) -> Session:
    """A session with *peer*; each handshake that came to nothing is told to *failed*.

    Raises Unreachable, Unserved, Lost, TlsFailed.
    """
    *others, last = ladder(demand)
    for step in others:
        try:
            return _session(peer, destination, settings, step)
        except TlsFailed as error:
            failed(error)
    try:
        return _session(peer, destination, settings, last)
    except TlsFailed as error:
        failed(error)
        raise


Why = Unreachable | Unserved | Lost | TlsFailed | Unwilling | Unfit


def miss(peer: Peer, error: Why, *, required: bool = False) -> Miss:
    """What is to be told of an address that did not serve; *required*: the message must not do without TLS."""
    if isinstance(error, Unwilling):
        return Miss(peer, _UNWILLING, None, reached=True, status=b"5.7.30", final=True)
    if isinstance(error, Unreachable):
        return Miss(peer, str(error).encode(), None, reached=False)
    if isinstance(error, Unserved):
        return Miss(peer, error.saying, error.reply, reached=True)
    if isinstance(error, Lost):
        return Miss(peer, b"Connected to %b but " + error.why + b".", None, reached=True)
    if isinstance(error, Unfit):
        status = b"5.7.10" if error.final else b"4.7.5"
        return Miss(peer, error.why, None, reached=True, status=status, final=error.final)
    why = str(error).encode("ascii", "backslashreplace").replace(b"%", b"%%")
    saying = b"Connected to %b but " + why + b"."
    if required and error.final:
        return Miss(peer, saying + _REQUIRED, None, reached=True, status=b"5.7.10", final=True)
    return Miss(peer, saying, None, reached=True, status=b"4.7.5")
