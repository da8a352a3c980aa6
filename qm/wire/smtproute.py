"""Where mail for a host is handed over: control/lmtproutes, then control/smtproutes (qmail.md 2.5, 14.1).

A line of smtproutes is ``host:relay:port``: mail for host goes to relay's addresses, whatever its MX records say.  The
host, each end of it that begins with a dot, and the empty key are looked up; the first hit wins.  An empty relay means
MX records, on that port.  A relay may be a name, an IPv4 address, ``[address]`` or ``[IPv6:address]``; an IPv6 address
needs brackets.  ``host:relay:port:tls`` is TLS before the greeting, as port 465 always is (RFC 8314 3.3).

A line of lmtproutes is ``host:/path`` of a socket on this machine, or ``host:server:port``: what is there delivers to
mailboxes (RFC 2033).  Keys are looked up the same way; an empty value means smtproutes after all.  A key that is an
address is refused: one recipient of a domain cannot go another way than the others.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from qm.errors import Temporary
from qm.wire.route import walk

SMTP_PORT: Final = 25  # RFC 5321 2.3.10
SMTPS_PORT: Final = 465  # RFC 8314 7.3: TLS before the greeting
CONTROLS: Final = ("lmtproutes", "smtproutes")  # what `routes` reads
PATH_MAX: Final = 107  # bytes of a socket's path; unix(7)
_TLS: Final = b"tls"


class Source(Protocol):
    """The control files, as qm.disk.control.Controls has them."""

    def table(self, name: str) -> Mapping[bytes, bytes]: ...


class Routes(NamedTuple):
    """A snapshot of the control files."""

    smtp: Mapping[bytes, bytes] = MappingProxyType({})
    lmtp: Mapping[bytes, bytes] = MappingProxyType({})


class Destination(NamedTuple):
    """Who takes the mail: the key of workers, of kept sessions and of send's concurrency."""

    host: bytes  # in lower case, without its last dot; or the path of a socket
    port: int = SMTP_PORT
    relay: bool = False  # a control file named it: its addresses count, not its MX records, and it may be ourselves
    tls: bool = False  # before the greeting
    lmtp: bool = False

    @property
    def is_path(self) -> bool:
        return self.lmtp and self.host.startswith(b"/")


class BadRoute(Temporary):
    """A line of smtproutes or lmtproutes that means nothing."""


def _bad(file: str, key: bytes, why: str) -> BadRoute:
    return BadRoute("a control file is broken", detail=f"control/{file}: {key.decode('ascii', 'replace')}: {why}")


def parse_port(text: bytes) -> int | None:
    """A port's number, or None."""
    return int(text) if text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536 else None


def split(value: bytes) -> tuple[bytes, bytes] | None:
    """``relay[:rest]`` as relay, with its brackets, and rest; None if the brackets do not match."""
    if not value.startswith(b"["):
        relay, _, rest = value.partition(b":")
        return relay, rest
    relay, bracket, rest = value.partition(b"]")
    if not bracket or (rest and not rest.startswith(b":")):
        return None
    return relay + b"]", rest[1:]


def _smtp(key: bytes, value: bytes) -> tuple[bytes, int, bool]:
    """Relay, port, and whether TLS comes first."""
    parts = split(value)
    if parts is None:
        raise _bad("smtproutes", key, "the brackets do not match")
    text, colon, word = parts[1].partition(b":")
    if colon and word != _TLS:
        raise _bad("smtproutes", key, "what follows the port is not tls")
    port = parse_port(text) if text else SMTPS_PORT if colon else SMTP_PORT
    if port is None:
        raise _bad("smtproutes", key, "the port is not a number from 1 to 65535")
    return parts[0].lower(), port, bool(colon) or port == SMTPS_PORT


def _lmtp(key: bytes, value: bytes) -> Destination | None:
    if not value:
        return None
    if value.startswith(b"/"):
        if len(value) > PATH_MAX or not (value.isascii() and value.decode().isprintable()) or b" " in value:
            raise _bad("lmtproutes", key, f"not the path of a socket, of at most {PATH_MAX} printable characters")
        return Destination(value, 0, relay=True, lmtp=True)
    server, text = split(value) or (b"", b"")
    port = parse_port(text)
    if not server or port in (None, SMTP_PORT):  # RFC 2033 1: not on port 25
        raise _bad("lmtproutes", key, "neither /path nor server:port, or the port is that of SMTP")
    assert port is not None
    return Destination(server.lower(), port, relay=True, lmtp=True)


def destination(routes: Routes, host: bytes) -> Destination:
    """The destination of *host*, what follows the last @ of an address; raises BadRoute for a broken line."""
    host = host.lower().removesuffix(b".")
    if routes.lmtp:
        key = next((key for key in walk(host) if key in routes.lmtp), None)
        found = None if key is None else _lmtp(key, routes.lmtp[key])
        if found is not None:
            return found
    if routes.smtp:
        key = next((key for key in walk(host) if key in routes.smtp), None)
        if key is not None:
            relay, port, tls = _smtp(key, routes.smtp[key])
            return Destination(relay or host, port, bool(relay), tls)
    return Destination(host)


def routes(controls: Source) -> Routes:
    """The routes that CONTROLS make; raises BadRoute for the first line that means nothing."""
    found = Routes(controls.table("smtproutes"), controls.table("lmtproutes"))
    for key, value in found.smtp.items():
        _smtp(key, value)
    for key, value in found.lmtp.items():
        if b"@" in key:
            raise _bad("lmtproutes", key, "the key is an address, and must be a domain")
        _lmtp(key, value)
    return found
