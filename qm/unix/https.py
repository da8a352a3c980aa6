"""One request by HTTPS, with an end to everything: time, size, redirects (none are followed).

The answer is read here within its bounds, and only then parsed, by the standard library.
"""

import io
import socket
import ssl
import time
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from typing import Final, NamedTuple

ANSWER_MAX: Final = 131072  # bytes, with the header


class NotFetched(Exception):
    """Why there is no answer."""


class Server(NamedTuple):
    """Whom to ask; in clear without a *context*."""

    address: str  # or a name, which is looked up in whatever time that takes
    port: int
    host: str  # what it is called, in its certificate too
    context: ssl.SSLContext | None


class _Bytes:
    """What HTTPResponse takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def get(server: Server, path: str, accept: str, limit_s: float) -> tuple[str, bytes]:
    """Media type and body of what is at *path*; raises NotFetched unless it is a 200."""
    head = f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"
    return _exchange(server, head, b"", limit_s)


def post(server: Server, path: str, form: str, authorization: str, limit_s: float) -> tuple[str, bytes]:
    """As `get`, of what the server answers to *form*, which is encoded already; it shall be JSON."""
    body = form.encode("ascii")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\nAccept: application/json\r\n"
        f"Authorization: {authorization}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return _exchange(server, head, body, limit_s)


def _exchange(server: Server, head: str, body: bytes, limit_s: float) -> tuple[str, bytes]:
    deadline_s = time.monotonic() + limit_s
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((server.address, server.port), limit_s))
            connection.settimeout(max(0.001, deadline_s - time.monotonic()))
            if server.context is not None:
                secured = server.context.wrap_socket(connection, server_hostname=server.host)
                connection = stack.enter_context(secured)
            connection.sendall(head.encode("ascii") + body)
            answer = _read(connection, deadline_s)
    except (OSError, ValueError) as error:
        raise NotFetched(str(error)) from error
    return _parse(answer)


def _read(connection: socket.socket, deadline_s: float) -> bytes:
    data = bytearray()
    while len(data) <= ANSWER_MAX:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise NotFetched("it takes too long")
        connection.settimeout(left_s)
        piece = connection.recv(16384)
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
