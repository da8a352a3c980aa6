"""Where mail for a host is handed over: control/smtproutes (qmail.md 2.5, 14.1).

A line is ``host:relay:port``: mail for host goes to relay's addresses, whatever its MX records say.  The host, each end
of it that begins with a dot, and the empty key are looked up; the first hit wins.  An empty relay means MX records, on
that port.  A relay may be a name, an IPv4 address, ``[address]`` or ``[IPv6:address]``; an IPv6 address needs brackets.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.wire.route import walk

SMTP_PORT: Final = 25  # RFC 5321 2.3.10


class Destination(NamedTuple):
    """Who takes the mail: the key of workers, of kept sessions and of send's concurrency."""

    host: bytes  # in lower case, without its last dot
    port: int = SMTP_PORT
    relay: bool = False  # smtproutes named it: its addresses count, not its MX records, and it may be ourselves


class BadRoute(Temporary):
    """A line of smtproutes that means nothing."""


def _bad(key: bytes, why: str) -> BadRoute:
    return BadRoute("a control file is broken", detail=f"control/smtproutes: {key.decode('ascii', 'replace')}: {why}")


def _port(key: bytes, text: bytes) -> int:
    if not text:
        return SMTP_PORT
    if not (text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise _bad(key, "the port is not a number from 1 to 65535")
    return int(text)


def _split(key: bytes, value: bytes) -> tuple[bytes, int]:
    """``relay[:port]`` as relay, with its brackets, and port."""
    if value.startswith(b"["):
        relay, bracket, rest = value.partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")):
            raise _bad(key, "the brackets do not match")
        return relay + b"]", _port(key, rest[1:])
    relay, _, port = value.partition(b":")
    return relay, _port(key, port)


def destination(smtproutes: Mapping[bytes, bytes], host: bytes) -> Destination:
    """The destination of *host*, what follows the last @ of an address; raises BadRoute for a broken line."""
    host = host.lower().removesuffix(b".")
    if smtproutes:
        for key in walk(host):
            value = smtproutes.get(key)
            if value is not None:
                relay, port = _split(key, value)
                return Destination(relay.lower() or host, port, bool(relay))
    return Destination(host)


def check(smtproutes: Mapping[bytes, bytes]) -> None:
    """Raise BadRoute for the first line that means nothing."""
    for key, value in smtproutes.items():
        _split(key, value)
