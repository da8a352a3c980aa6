"""The door for qm-tcpto and qm-tcpok: one question about addresses that do not answer, one answer, closed.

The socket is made before privileges are dropped and has mode 0600: only who started us, root or a private system's
owner, may ask.  Deliveries do not wait for it: without the socket everything else works.
"""

import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Final

from qm.rspawn.memory import Silent
from qm.unix import fds, log
from qm.unix.loop import Loop
from qm.wire import silent as wire
from qm.wire.record import Malformed, unpack

NAME: Final = b"qm-rspawn"
CLIENTS_MAX: Final = 8  # the oldest makes room
BACKLOG: Final = 64  # connections that wait to be taken


def listen() -> socket.socket | None:
    """Make the socket; says why if that fails."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        with suppress(FileNotFoundError):
            os.unlink(wire.SOCKET)
        listener.bind(wire.SOCKET)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        log.warning(NAME, f"{wire.SOCKET}: {error.strerror}; qm-tcpto and qm-tcpok will not work")
        listener.close()
        return None
    finally:
        os.umask(umask)
    return listener


class Door:
    def __init__(self, loop: Loop, listener: socket.socket, silent: Silent) -> None:
        self._loop = loop
        self._listener = listener
        self._silent = silent
        self._clients: dict[int, socket.socket] = {}
        loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        client.setblocking(False)
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(next(iter(self._clients.values())))
        self._clients[client.fileno()] = client
        self._loop.watch(client.fileno(), partial(self._readable, client))

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client.fileno()]
        self._loop.unwatch(client.fileno())
        client.close()

    def _readable(self, client: socket.socket) -> None:
        try:
            record, descriptors = fds.recv_record(client)
            fds.close_all(descriptors)
            if record:
                fds.send_record(client, self._answer(unpack(record, 1)[0]))
        except (OSError, Malformed) as error:
            log.warning(NAME, f"{wire.SOCKET}: {error}")
        self._drop(client)

    def _answer(self, question: bytes) -> bytes:
        """Raises Malformed."""
        known = self._silent.known()
        if question == wire.KNOWN:
            now_s = time.monotonic()
            return wire.pack_known(wire.Silent(address, count, int(now_s - at_s)) for address, (count, at_s) in known)
        if question == wire.CLEAR:
            self._silent.clear()
            return wire.pack_cleared(len(known))
        raise Malformed("not a question that we know")
