"""One GET by HTTPS, with an end to everything: time, size, redirects (none are followed).

The answer is read here within its bounds, and only then parsed, by the standard library.
"""

import io
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse
from typing import Final

ANSWER_MAX: Final = 131072  # bytes, with the header


class NotFetched(Exception):
    """Why there is no answer."""


class _Bytes:
    """What HTTPResponse takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def fetch(address: str, port: int, host: str, path: str, context: ssl.SSLContext, limit_s: float) -> tuple[str, bytes]:
    """Media type and body of ``https://host/path``, from *address*; raises NotFetched unless it is a 200."""
    deadline_s = time.monotonic() + limit_s
    try:
        with socket.create_connection((address, port), limit_s) as plain:
            plain.settimeout(max(0.001, deadline_s - time.monotonic()))
            with context.wrap_socket(plain, server_hostname=host) as secured:
                request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: text/plain\r\n\r\n"
                secured.sendall(request.encode("ascii"))
                answer = _read(secured, deadline_s)
    except (OSError, ValueError) as error:
        raise NotFetched(str(error)) from error
    return _parse(answer)


def _read(secured: ssl.SSLSocket, deadline_s: float) -> bytes:
    data = bytearray()
    while len(data) <= ANSWER_MAX:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise NotFetched("it takes too long")
        secured.settimeout(left_s)
        piece = secured.recv(16384)
        if not piece:
            return bytes(data)
        data += piece
    raise NotFetched("it is too large")


def _parse(answer: bytes) -> tuple[str, bytes]:
    response = HTTPResponse(_Bytes(answer))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (HTTPException, OSError, ValueError) as error:
        raise NotFetched("the answer is not HTTP") from error
    if response.status != 200:  # RFC 8461 3.3: redirects are not followed
        raise NotFetched(f"status {response.status}")
    return response.getheader("Content-Type", "").partition(";")[0].strip().lower(), body
