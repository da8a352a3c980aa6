"""TLS on a session's socket: contexts, the handshake, and whether the peer is whom the demand wants.

No key of ours is in it: a client has none.  TLS 1.2 and newer (RFC 8996, RFC 9325 3.1.1).
"""

import hashlib
import socket
import ssl
import time
from functools import cache
from typing import Final

from qm.unix import tlscontext
from qm.wire import certificate, certname
from qm.wire.saslclient import BINDING
from qm.wire.tlspolicy import Demand, Level, Trouble

SEND_MAX: Final = 16384  # bytes of a TLS record; RFC 8446 5.1
CHAIN_MAX: Final = 10  # certificates that are looked at


class TlsFailed(Exception):
    """The session is not as protected as it must be; *why* goes after ``Connected to 1.2.3.4 but``."""

    def __init__(self, why: str, trouble: Trouble, *, passing: bool = False) -> None:
        """*passing*: it says itself that this is for now."""
        super().__init__(why)
        self.trouble = trouble
        self.final = trouble not in (Trouble.FAILED, Trouble.NO_DNSSEC) and not passing


_VERIFY: Final = {10: Trouble.EXPIRED}  # X509_V_ERR_CERT_HAS_EXPIRED; whatever else there is, nobody vouches for it
Socket = ssl.SSLSocket


def _context() -> ssl.SSLContext:
    context = tlscontext.client()
    context.check_hostname = False  # by `certname`: the demand may name others than the host
    return context


@cache
def unverified() -> ssl.SSLContext:
    """Made once, before the workers are forked: it costs more than a handshake's half."""
    context = _context()
    context.verify_mode = ssl.CERT_NONE
    return context


@cache
def verified(roots: str) -> ssl.SSLContext:
    """With the system's roots, looked up as they are needed, or those of a file or directory; raises OSError."""
    context = _context()
    tlscontext.trust(context, roots)
    return context


def _sni(name: bytes) -> str | None:
    """What to call the host in the handshake (RFC 6066 3): its name, but no address."""
    text = name.decode("ascii", "replace")
    labels = text.split(".")
    return text if text.isascii() and all(0 < len(label) < 64 for label in labels) and "[" not in text else None


def start(connection: socket.socket, name: bytes, demand: Demand, roots: str, timeout_s: float) -> Socket:
    """Shake hands with host *name*; the plain socket is no more.  Raises TlsFailed, after which it is closed."""
    used = connection  # that which is to be closed
    try:
        context = _context_for(demand, roots)
        connection.settimeout(timeout_s)
        # this reads, too: what came in clear meanwhile, or a reset, is an OSError
        used = secured = context.wrap_socket(connection, server_hostname=_sni(name), do_handshake_on_connect=False)
        secured.do_handshake()
        _check(secured, demand)
    except (TlsFailed, OSError) as error:
        used.close()
        raise _failure(error) from error
    return secured


def _context_for(demand: Demand, roots: str) -> ssl.SSLContext:
    if demand.level is not Level.VERIFY:
        return unverified()
    try:
        return verified(roots)
    except OSError as error:
        raise TlsFailed("control/tlsroots cannot be read", Trouble.FAILED) from error


def _failure(error: TlsFailed | OSError) -> TlsFailed:
    if isinstance(error, TlsFailed):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"I do not trust its certificate: {error.verify_message.rstrip('.')}"
        return TlsFailed(why, _VERIFY.get(error.verify_code, Trouble.NOT_TRUSTED))
    if isinstance(error, TimeoutError):
        return TlsFailed("it did not finish the TLS handshake in time", Trouble.FAILED)
    return TlsFailed(f"the TLS handshake failed: {_reason(error)}", Trouble.FAILED)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "connection closed"
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or "connection died").lower().replace("_", " ")


def _check(secured: Socket, demand: Demand) -> None:
    if demand.level is Level.DANE:
        from qm.remote import dane

        if not dane.is_vouched_for(demand.tlsa, _chain(secured), demand.names):
            raise TlsFailed("its certificate is not that of its TLSA records", Trouble.BAD_TLSA)
    if demand.level is Level.VERIFY and not certname.is_for_any(_names(secured), demand.names):
        raise TlsFailed("its certificate is for another name", Trouble.WRONG_NAME)


def _names(secured: Socket) -> list[bytes]:
    """The host names of a certificate that has been verified, and its addresses in brackets."""
    names = []
    for entry in (secured.getpeercert() or {}).get("subjectAltName", ()):
        kind, value = entry[0], entry[1]
        if isinstance(kind, str) and isinstance(value, str):
            text = value.strip().encode("ascii", "replace")
            address = certname.address(text) if kind == "IP Address" else None
            names += [text] if kind == "DNS" else [address] if address else []
    return names


def _chain(secured: Socket) -> list[bytes]:
    """What the peer sent, its own certificate first, in DER.

    Python 3.13 has a method for it; before, the same is one level down.
    """
    if hasattr(secured, "get_unverified_chain"):
        return list(secured.get_unverified_chain())[:CHAIN_MAX]
    inner = getattr(secured, "_sslobj")  # noqa: B009
    return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in (inner.get_unverified_chain() or ())[:CHAIN_MAX]]


def facts(secured: Socket) -> bytes:
    """Version and cipher, as ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
    cipher = secured.cipher()
    return f"{secured.version()} {cipher[0] if cipher else 'unknown'}".encode("ascii", "replace")


def bindings(secured: Socket) -> dict[bytes, bytes]:
    """The channel bindings that Python can give (RFC 5929 4), by their type."""
    der = secured.getpeercert(binary_form=True)
    try:
        name = certificate.read(der).hash if der else ""
    except certificate.NotCertificate:
        name = ""
    return {BINDING: hashlib.new(name, der).digest()} if der and name else {}


def send(secured: Socket, data: bytes, timeout_s: float) -> None:
    """All of *data* within the time; the ssl module would give that much to each record.  Raises OSError."""
    deadline_s = time.monotonic() + timeout_s
    view = memoryview(data)
    while view:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        secured.settimeout(left_s)
        view = view[secured.send(view[:SEND_MAX]) :]


def is_quiet(secured: Socket) -> bool:
    """Whether nothing was said and the connection stands.

    It reads: TLS 1.3 sends tickets of its own, which are taken here and mean nothing.
    """
    secured.settimeout(0)
    try:
        secured.recv(1)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        pass
    return False


def say_goodbye(secured: Socket) -> None:
    """close_notify, if it can be said at once; the peer's is not waited for (RFC 8446 6.1)."""
    try:
        secured.settimeout(0)
        secured.unwrap()
    except (OSError, ValueError):
        pass
