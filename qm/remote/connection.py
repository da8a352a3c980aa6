"""A connection to a server, in clear or behind TLS: every wait has a deadline."""

import errno
import socket
import time
from collections.abc import Mapping
from typing import Final

from qm.errors import Temporary
from qm.remote import tls
from qm.remote.words import Peer
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import Demand

READ_MAX: Final = 65536  # bytes taken at once
_OUR_TROUBLE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Unreachable(Exception):
    """No connection; *silent*: nobody said no either."""

    def __init__(self, why: str, *, silent: bool) -> None:
        super().__init__(why)
        self.silent = silent


class Lost(Exception):
    """The connection has died, timed out, or carries no SMTP; *why* goes after ``Connected to 1.2.3.4 but``."""

    def __init__(self, why: bytes) -> None:
        super().__init__(why)
        self.why = why


def _by_path(path: bytes, timeout_s: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _by_network(peer: Peer, port: int, timeout_s: int) -> socket.socket:
    connection = socket.create_connection((peer.address.decode(), port), timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect(peer: Peer, destination: Destination, timeout_s: int) -> socket.socket:
    """Raises Unreachable; Temporary if it is our own trouble."""
    try:
        if destination.is_path:
            connection = _by_path(destination.host, timeout_s)
        else:
            connection = _by_network(peer, destination.port, timeout_s)
    except TimeoutError as error:  # also the kernel's own ETIMEDOUT
        raise Unreachable("connection timed out", silent=not destination.is_path) from error
    except OSError as error:
        if error.errno in _OUR_TROUBLE:
            raise Temporary("Unable to make a connection.", detail=error.strerror or "") from error
        raise Unreachable((error.strerror or "no connection").lower(), silent=False) from error
    return connection


class Connection:
    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain
        self._tls: tls.Socket | None = None  # the same, when it is protected

    @property
    def protected(self) -> bool:
        return self._tls is not None

    def protect(self, name: bytes, demand: Demand, roots: str, timeout_s: float) -> bytes:
        """Begin TLS with host *name*; gives version and cipher.  Raises TlsFailed, and it is then closed."""
        self._tls = self._socket = tls.start(self._socket, name, demand, roots, timeout_s)
        return tls.facts(self._tls)

    def bindings(self) -> Mapping[bytes, bytes]:
        """Channel bindings by their type (RFC 5056), of a connection that is protected."""
        return {} if self._tls is None else tls.bindings(self._tls)

    def send(self, data: bytes, timeout_s: float) -> None:
        """All of *data*; raises Lost."""
        try:
            if self._tls is not None:
                tls.send(self._tls, data, timeout_s)
            else:
                self._socket.settimeout(timeout_s)
                self._socket.sendall(data)
        except TimeoutError as error:
            raise Lost(b"it stopped reading") from error
        except OSError as error:
            raise Lost(b"connection died") from error

    def receive(self, deadline_s: float) -> bytes:
        """What comes, at least a byte; raises Lost."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise Lost(b"it did not answer in time")
        self._socket.settimeout(left_s)
        try:
            data = self._socket.recv(READ_MAX)
        except TimeoutError as error:
            raise Lost(b"it did not answer in time") from error
        except OSError as error:
            raise Lost(b"connection died") from error
        if not data:
            raise Lost(b"connection died")
        return data

    def is_quiet(self) -> bool:
        """Whether it stands, and nothing has come; if not, it is of no more use."""
        if self._tls is not None:
            return tls.is_quiet(self._tls)
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def say_last(self, line: bytes) -> None:
        """Send *line*, and the end of TLS, if that can be done at once."""
        try:
            self._socket.settimeout(0)
            self._socket.send(line)
        except OSError:
            pass
        if self._tls is not None:
            tls.say_goodbye(self._tls)

    def close(self) -> None:
        self._socket.close()
