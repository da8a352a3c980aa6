"""Answers to HTTP-01 challenges (RFC 8555 8.3): by a listener of our own, or as files of a web server's.

The listener is a child that knows tokens and their answers, and no secret; strangers' requests are read there only.
"""

import os
import re
import socket
import time
from contextlib import suppress
from typing import Final

from qm.admin.helper import Helper
from qm.errors import Permanent, Temporary
from qm.unix import fds, privs
from qm.unix.loop import Loop
from qm.wire.record import pack, unpack

TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}")  # RFC 8555 8.3: base64url
ANSWER: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}\.[A-Za-z0-9_-]{43}")  # token, key thumbprint (RFC 8555 8.1)
FOLDERS: Final = (".well-known", "acme-challenge")
PREFIX: Final = b"/.well-known/acme-challenge/"
REQUEST_MAX: Final = 4096  # bytes up to the empty line
REQUEST_S: Final = 10.0
CONNECTIONS_MAX: Final = 32
ANSWERS_MAX: Final = 100
DONE: Final = b"done\0"
_TAKE_S: Final = 5.0  # for the listener to take an answer
_NO: Final = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_YES: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
)


class Strange(Temporary):
    """The child that speaks with the server asks for what no server may want."""


def check(token: bytes, answer: bytes) -> None:
    """Raises Strange: the two become a file's name and content, or a reply to anybody."""
    if not (TOKEN.fullmatch(token) and ANSWER.fullmatch(answer) and answer.startswith(token + b".")):
        raise Strange("the server's challenge makes no sense")


def reply(request: bytes, answers: dict[bytes, bytes]) -> bytes:
    """To a request whose head is whole, or too long."""
    words = request.partition(b"\r\n")[0].split(b" ")
    if len(words) == 3 and words[0] == b"GET" and words[1].startswith(PREFIX):
        answer = answers.get(words[1][len(PREFIX) :])
        if answer is not None:
            return _YES % (len(answer), answer)
    return _NO


class _Door:
    """In the child: the listener's loop."""

    def __init__(self, loop: Loop, listener: socket.socket, channel: socket.socket) -> None:
        self._loop = loop
        self._listener = listener
        self._channel = channel
        self._answers: dict[bytes, bytes] = {}
        self._heard: dict[socket.socket, bytes] = {}  # the longest connected first
        loop.watch(channel.fileno(), self._learn)
        loop.watch(listener.fileno(), self._accept)

    def _learn(self) -> None:
        record, descriptors = fds.recv_record(self._channel)
        fds.close_all(descriptors)
        if not record:
            self._loop.stop()
            return
        token, answer = unpack(record, 2)
        if len(self._answers) < ANSWERS_MAX:
            self._answers[token] = answer
        fds.send_record(self._channel, DONE)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        if len(self._heard) >= CONNECTIONS_MAX:
            self._close(next(iter(self._heard)))
        client.setblocking(False)
        self._heard[client] = b""
        self._loop.watch(client.fileno(), lambda: self._hear(client))
        self._loop.after(REQUEST_S, lambda: self._close(client))

    def _hear(self, client: socket.socket) -> None:
        try:
            piece = client.recv(REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        heard = self._heard[client] = self._heard[client] + piece
        if b"\r\n\r\n" in heard or len(heard) >= REQUEST_MAX:
            with suppress(OSError):
                client.send(reply(heard, self._answers), socket.MSG_NOSIGNAL)  # it fits into any socket's buffer
                client.shutdown(socket.SHUT_WR)
            self._close(client)
        elif not piece:
            self._close(client)

    def _close(self, client: socket.socket) -> None:
        if self._heard.pop(client, None) is not None:
            self._loop.unwatch(client.fileno())
            client.close()


class Listener:
    """*address* is where it listens, "" for every address of this machine; raises Temporary."""

    def __init__(self, address: str, port: int) -> None:
        dual = not address and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual or ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, port), family=family, dualstack_ipv6=dual)
        except OSError as error:
            detail = f"{error.strerror}; where a web server runs, use its --webroot"
            raise Temporary(f"cannot listen at port {port}", detail=detail) from error

        def serve(channel: socket.socket) -> None:
            loop = Loop()
            _Door(loop, listener, channel)
            loop.run()

        listener.setblocking(False)
        with listener:
            self._helper = Helper(privs.least(), serve, [listener.fileno()])

    def put(self, token: bytes, answer: bytes) -> None:
        check(token, answer)
        self._helper.ask(pack(token, answer), time.monotonic() + _TAKE_S)

    def close(self) -> None:
        self._helper.close()


class Webroot:
    """Files below *folder*, which a web server shows; they are removed at the end.  No link in it is followed."""

    def __init__(self, folder: str) -> None:
        self._made: list[str] = []
        self._folder = -1
        try:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in FOLDERS:
                self._enter(name)
        except OSError as error:
            self.close()
            raise Permanent("cannot use the webroot", detail=f"{folder}: {error.filename}: {error.strerror}") from error

    def _enter(self, name: str) -> None:
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=self._folder)
            made = True
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner = os.open(name, flags, dir_fd=self._folder)
        if made:
            os.fchmod(inner, 0o755)  # another user's web server passes through, whatever our umask is
        os.close(self._folder)
        self._folder = inner

    def put(self, token: bytes, answer: bytes) -> None:
        check(token, answer)
        name = token.decode("ascii")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o644, dir_fd=self._folder)
        self._made.append(name)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)  # another user's web server reads it
            file.write(answer)

    def close(self) -> None:
        for name in self._made:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
