"""Connections to a host and port that somebody names, as tcpclient makes them (qmail.md 21.4)."""

import os
import socket
from typing import Any, Final, NamedTuple

from qm.errors import Temporary

ADDRESSES_MAX: Final = 16  # of one name
FIRST_S: Final = 2.0  # for each address ...
AGAIN_S: Final = 58.0  # ... and for those that did not answer, once more


class Patience(NamedTuple):
    first_s: float = FIRST_S
    again_s: float = AGAIN_S


class Here(NamedTuple):
    """Our own end; None and 0 are the kernel's choice."""

    ip: str | None = None
    port: int = 0


def addresses(host: bytes, port: bytes, family: int = 0) -> list[tuple[int, Any]]:
    """Families and addresses of *host*, 0 for this machine; *port* is a number or a name.  Raises Temporary."""
    where = "127.0.0.1" if host in (b"", b"0") and family != socket.AF_INET6 else os.fsdecode(host)
    where = "::1" if where in ("", "0") else where
    try:
        found = socket.getaddrinfo(where, os.fsdecode(port), family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        name = f"{os.fsdecode(host)} port {os.fsdecode(port)}"
        raise Temporary(f"unable to find {name}", detail=str(error)) from error
    return [(kind, address) for kind, _, _, _, address in found[:ADDRESSES_MAX]]


def connect(found: list[tuple[int, Any]], patience: Patience, here: Here) -> socket.socket:
    """The first of *found* that answers; raises OSError, the last that there was."""
    if len(found) == 1:
        return _try(*found[0], sum(patience), here)
    late = []
    last: OSError = TimeoutError("timed out")
    for kind, address in found:
        try:
            return _try(kind, address, patience.first_s, here)
        except TimeoutError:
            late.append((kind, address))
        except OSError as error:
            last = error
    for kind, address in late if patience.again_s else []:
        try:
            return _try(kind, address, patience.again_s, here)
        except OSError as error:
            last = error
    raise last


def _try(kind: int, address: Any, limit_s: float, here: Here) -> socket.socket:
    channel = socket.socket(kind, socket.SOCK_STREAM)
    try:
        if here.ip is not None or here.port:
            channel.bind((here.ip or ("::" if kind == socket.AF_INET6 else "0.0.0.0"), here.port))  # noqa: S104
        channel.settimeout(max(limit_s, 0.001))
        channel.connect(address)
        channel.settimeout(None)
    except BaseException:
        channel.close()
        raise
    return channel
