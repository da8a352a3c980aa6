"""A listening socket in the home at which only some users get answers: what its servers share."""

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from qm.errors import Temporary
from qm.unix import log
from qm.unix.loop import Loop
from qm.unix.program import Env, ready

BACKLOG: Final = 128  # connections that wait to be taken
COMPLAIN_S: Final = 60.0  # the same complaint is said once in this time
COMPLAINTS_MAX: Final = 100
_UCRED: Final = struct.Struct("@iII")  # pid, uid, gid; unix(7)


def listen(path: str) -> socket.socket:
    """A socket that everybody may connect to; SO_PEERCRED says whom we answer.  Raises Temporary.

    The caller holds a lock, and so may take a socket that is there already for a stale one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o111)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        raise Temporary("cannot listen", detail=f"{path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


class Server(Protocol):
    def close(self) -> None:
        """End the workers."""


def serve(loop: Loop, path: str, listener: socket.socket, server: Server, env: Env, reload: Callable[[], None]) -> None:
    """Run *server*, which takes connections from *listener*, until SIGTERM; SIGHUP is *reload*."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(signum, loop.stop)
    loop.on_signal(signal.SIGHUP, reload)
    ready(env)
    loop.run()
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener.close()
    server.close()


def peer(channel: socket.socket) -> tuple[int, int]:
    """The pid and uid of who is at the other end: who connected, or who listens there."""
    return credentials(channel)[:2]


def credentials(channel: socket.socket) -> tuple[int, int, int]:
    """The same, and the gid."""
    pid, uid, gid = _UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid), int(uid), int(gid)


def uid(channel: socket.socket) -> int:
    """Who is at the other end."""
    return peer(channel)[1]


class Complaints:
    """Warnings, each said once in a while."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._said: dict[str, float] = {}

    def say(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said.get(text, -COMPLAIN_S) >= COMPLAIN_S:
            if len(self._said) >= COMPLAINTS_MAX:
                self._said.clear()
            self._said[text] = now_s
            log.warning(self._name, text)
