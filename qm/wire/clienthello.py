"""What a TLS client asks for first, as far as a server must know it before a library answers (RFC 8446 4.1.2).

Python's ssl goes on without ALPN when nothing that the client offers fits, which lets a browser be turned on a mail
server (ALPACA); RFC 7301 3.2 wants the connection ended.  So the offer is read here first.
"""

from typing import Final, NamedTuple

HELLO_MAX: Final = 65536  # bytes of records; the largest real ones, with post-quantum keys, have about 2000
RECORDS_MAX: Final = 64  # that it may be spread over, so that reading it anew with each byte that comes stays cheap
NO_PROTOCOL: Final = b"\x15\x03\x03\x00\x02\x02\x78"  # the alert no_application_protocol, fatal (RFC 7301 3.2)
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_ALPN: Final = 16


class Hello(NamedTuple):
    """A ClientHello; *protocols* it offers by ALPN, in its order."""

    protocols: tuple[bytes, ...] = ()


class _Short(Exception):
    """A field ends before its length says."""


class _Fields:
    """Bytes that are taken field by field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise _Short
        self._at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes after their length, which has *size* bytes."""
        return self.take(self.number(size))


def read(data: bytes) -> Hello | None:
    """The ClientHello that *data*, all that a client has sent so far, begins with; None if more must come.

    What is no ClientHello, or a broken one, gives an empty Hello: the library is asked to judge it.
    """
    message = _message(data)
    if message is None:
        return None if len(data) < HELLO_MAX else Hello()
    try:
        return Hello(_protocols(_Fields(message)))
    except _Short:
        return Hello()


def _message(data: bytes) -> bytes | None:
    """The body of the first handshake message, which may be spread over records; b"" if it is something else."""
    records = _Fields(data)
    found = b""
    count = 0
    try:
        while len(found) < 4 or len(found) < 4 + int.from_bytes(found[1:4], "big"):
            count += 1
            if count > RECORDS_MAX:
                return b""
            if records.number(1) != _HANDSHAKE or records.number(1) != 3:
                return b""
            records.take(1)
            piece = records.vector(2)
            if not piece:
                return b""  # RFC 8446 5.1: no empty fragments of handshake messages
            found += piece
            if found[0] != _CLIENT_HELLO:
                return b""
    except _Short:
        return None
    return found[4 : 4 + int.from_bytes(found[1:4], "big")]


def _protocols(hello: _Fields) -> tuple[bytes, ...]:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    extensions = _Fields(hello.vector(2)) if hello else _Fields(b"")
    while extensions:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == _ALPN:
            names = _Fields(_Fields(body).vector(2))
            found = []
            while names:
                found.append(names.vector(1))
            return tuple(found)
    return ()
