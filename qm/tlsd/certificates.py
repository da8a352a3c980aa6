"""Certificates and keys, as root reads them: control/servercert.pem, and by name control/servercerts/NAME.pem.

A file has the chain and the key, and is nobody's to read but its owner's.  A file that is changed counts within a
second; one that is then broken changes nothing: the last good one goes on, and the log says why.
"""

import hashlib
import os
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from qm.disk import certfiles
from qm.disk.certfiles import BY_NAME, DEFAULT, PEM_MAX, SUFFIX, WILDCARD
from qm.wire import certificate
from qm.wire.certificate import NotCertificate

CLIENT_CA: Final = "control/clientca.pem"
PROTOCOLS: Final = (b"smtp", b"pop3")  # their names in ALPN (RFC 7301 6, IANA)
# ephemeral keys only (RFC 9325 4.1); CBC with SHA-2 last, since mail servers of 2012 have no other, and would use none
_TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!SHA1:!AESCCM"

Stamp = tuple[int, int, int, int]
Complain = Callable[[str], None]


class Unusable(Exception):
    """Why a file is not used."""


class Identity(NamedTuple):
    """A certificate that can be shown."""

    contexts: dict[bytes, ssl.SSLContext]  # by protocol
    end_point: bytes  # tls-server-end-point (RFC 5929 4); empty if its algorithm has none
    until: datetime


def _stamp(path: str) -> Stamp | None:
    """What changes when the file does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _pem(path: str) -> str:
    """The file's text; raises Unusable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Unusable("it is no file")
            if status.st_uid not in (0, os.geteuid()):
                raise Unusable("its owner is another user")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise Unusable("others may read its key; chmod 600")
            return file.read(PEM_MAX).decode("latin-1")
    except OSError as error:
        raise Unusable(error.strerror) from error


def _context(path: str, protocol: bytes, clients: bool) -> ssl.SSLContext:
    """Raises ssl.SSLError, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0  # every session has keys of its own
    context.set_ciphers(_TLS12)
    context.set_alpn_protocols([protocol.decode("ascii")])
    context.load_cert_chain(path)
    if clients:
        context.load_verify_locations(CLIENT_CA)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def load(path: str, clients: bool) -> Identity:
    """Raises Unusable."""
    text = _pem(path)
    try:
        der = certfiles.first(text)
        facts = certificate.read(der)
        contexts = {protocol: _context(path, protocol, clients) for protocol in PROTOCOLS}
    except NotCertificate as error:
        raise Unusable(f"its first certificate is broken: {error}") from error
    except ssl.SSLError as error:
        raise Unusable(f"certificate and key: {error.reason or 'no PEM'}") from error
    except ValueError as error:
        raise Unusable("it has no certificate") from error
    except OSError as error:
        raise Unusable(error.strerror) from error
    end_point = hashlib.new(facts.hash, der).digest() if facts.hash else b""
    return Identity(contexts, end_point, facts.until)


class Certificates:
    """What can be shown now; `refresh` looks at the files."""

    def __init__(self, alert: Complain, warn: Complain) -> None:
        self._alert = alert
        self._warn = warn
        self._stamps: dict[str, Stamp] = {}  # of what was looked at last
        self._known: dict[str, Identity] = {}  # by path
        self._clients: Stamp | None = None

    def refresh(self) -> bool:
        """Read what has changed; whether anything has."""
        stamps = {path: _stamp(path) for path in (DEFAULT, *certfiles.by_name())}
        found = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        clients = _stamp(CLIENT_CA)
        if found == self._stamps and clients == self._clients:
            return False
        for path, stamp in found.items():
            if stamp != self._stamps.get(path) or clients != self._clients:
                self._load(path, clients is not None)
        for path in self._known.keys() - found.keys():
            del self._known[path]
        self._stamps, self._clients = found, clients
        return True

    def _load(self, path: str, clients: bool) -> None:
        try:
            identity = load(path, clients)
        except Unusable as error:
            goes_on = "the last good one goes on" if path in self._known else "it is not used"
            self._alert(f"{path}: {error}; {goes_on}")
            return
        self._known[path] = identity
        if identity.until < datetime.now(UTC):
            self._warn(f"{path}: the certificate has expired, at {identity.until:%Y-%m-%d %H:%M} UTC")

    def __bool__(self) -> bool:
        return bool(self._known)

    def choose(self, name: str) -> Identity | None:
        """What to show to a client that calls us by *name*, perhaps "": a file of that name, a wildcard, the default.

        Without a default, the first file of a name is it.
        """
        base = name.lower().rstrip(".")
        parent = base.partition(".")[2]
        for candidate in (base, WILDCARD + parent):
            found = self._known.get(f"{BY_NAME}/{candidate}{SUFFIX}")
            if found is not None:
                return found
        return self._known.get(DEFAULT) or next(iter(self._known.values()), None)
