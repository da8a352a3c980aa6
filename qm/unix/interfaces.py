"""The addresses of this machine, from the kernel (rtnetlink(7)); the standard library does not tell them."""

import socket
import struct
from collections.abc import Iterator
from typing import Final

from qm.errors import Temporary

_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2  # our end of a point-to-point link, where IFA_ADDRESS is the other
_HEADER: Final = struct.Struct("=IHHII")
_IFADDRMSG: Final = struct.Struct("=BBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ANSWER_MAX: Final = 65536  # bytes of one piece of the answer
_WAIT_S: Final = 5.0


def _aligned(size: int) -> int:
    return size + 3 & ~3


def _address(message: bytes) -> bytes | None:
    """The address that the body of a RTM_NEWADDR message tells, in text."""
    family = message[0]
    found: dict[int, bytes] = {}
    at = _IFADDRMSG.size
    while at + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind] = message[at + _ATTRIBUTE.size : at + size]
        at += _aligned(size)
    packed = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
    if (family, len(packed)) not in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        return None
    return socket.inet_ntop(family, packed).encode()


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(answer):
        size, kind, _, _, _ = _HEADER.unpack_from(answer, at)
        if size < _HEADER.size:
            return
        yield kind, answer[at + _HEADER.size : at + size]
        at += _aligned(size)


def own_addresses() -> frozenset[bytes]:
    """All IPv4 and IPv6 addresses of our interfaces, in text; raises Temporary if the kernel does not tell."""
    found: set[bytes] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(_WAIT_S)
            size = _HEADER.size + _IFADDRMSG.size
            netlink.send(_HEADER.pack(size, _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + _IFADDRMSG.pack(0, 0, 0, 0, 0))
            while True:
                for kind, body in _messages(netlink.recv(_ANSWER_MAX)):
                    if kind == _NLMSG_DONE:
                        return frozenset(found)
                    if kind == _NLMSG_ERROR:
                        raise OSError("netlink error")
                    if kind == _RTM_NEWADDR:
                        address = _address(body)
                        if address is not None:
                            found.add(address)
    except OSError as error:
        raise Temporary("cannot list our own addresses", detail=f"rtnetlink: {error}") from error
