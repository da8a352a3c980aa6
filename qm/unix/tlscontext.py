"""TLS as a client of ours speaks it: whom it trusts, and nothing older than TLS 1.2 (RFC 8996, RFC 9325 3.1.1)."""

import os
import ssl
from functools import cache


def client() -> ssl.SSLContext:
    """A context that trusts nobody yet, and wants the name that it is told of."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def trust(context: ssl.SSLContext, roots: str) -> None:
    """The system's roots, looked up as they are needed, or those of a file or of a directory/; raises OSError."""
    if not roots:
        context.set_default_verify_paths()
    elif roots.endswith("/"):
        context.load_verify_locations(capath=roots)
    else:
        context.load_verify_locations(cafile=roots)


@cache
def named(roots: str) -> ssl.SSLContext:
    """For HTTPS: verified, and for the name that is asked for; raises OSError."""
    context = client()
    trust(context, roots)
    return context


def roots(path: bytes) -> str:
    """What `trust` takes, of control/tlsroots: a directory has a / at its end."""
    name = os.fsdecode(path)
    return name.rstrip("/") + "/" if name and os.path.isdir(name) else name
