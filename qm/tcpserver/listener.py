"""The socket that connections come to.

Host 0 or nothing is every address of this machine, of IPv6 and IPv4, on one socket; -4 and -6 leave the other out.
Of a name's addresses the first IPv4 one is taken, with -6 the first IPv6 one.
"""

import os
import socket
from typing import NamedTuple

from qm.errors import Temporary
from qm.tcpserver.options import Options
from qm.wire import ucspi
from qm.wire.ucspi import Address

_Target = tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]  # family and socket(7) address


class Place(NamedTuple):
    """What is known of a connection's end here before it comes."""

    family: int
    local: Address | None  # None: it may come to any address


def _port(text: bytes) -> int:
    if text.isdigit() and len(text) < 6 and int(text) <= 65535:
        return int(text)
    try:
        return socket.getservbyname(text.decode("ascii"), "tcp")
    except (OSError, UnicodeDecodeError) as error:
        raise Temporary("no such port", detail=os.fsdecode(text)) from error


def _any(options: Options, port: int) -> _Target:
    if options.family == 4 or (options.family == 0 and not _has_ipv6()):
        return socket.AF_INET, ("0.0.0.0", port)  # noqa: S104  it is what was asked for
    return socket.AF_INET6, ("::", port)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM):
            return True
    except OSError:
        return False


def _target(options: Options) -> _Target:
    port = _port(options.port)
    if options.host in (b"", b"0"):
        return _any(options, port)
    family = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[options.family]
    try:
        found = socket.getaddrinfo(options.host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except OSError as error:
        raise Temporary("no such host", detail=f"{os.fsdecode(options.host)}: {error.strerror}") from error
    first = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return first[0], first[4]


def listen(options: Options) -> socket.socket:
    """Bind and listen; raises Temporary."""
    family, address = _target(options)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.family == 6)
        listener.bind(address)
        listener.listen(options.backlog)
    except OSError as error:
        listener.close()
        where = f"{os.fsdecode(options.host)} port {os.fsdecode(options.port)}"
        raise Temporary("cannot listen", detail=f"{where}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def address_of(channel: socket.socket) -> Address:
    """The address of our end."""
    ip, port = channel.getsockname()[:2]
    return Address(ucspi.plain(ip), port)


def place(listener: socket.socket) -> Place:
    local = address_of(listener)
    return Place(listener.family, None if local.ip in (b"0.0.0.0", b"::") else local)
