"""The half of popup that talks to strangers: a process of its own, without privileges.

It takes from the network exactly the commands that it answers, so that what a client pipelines after a login stays
there for whoever serves the mailbox: on a socket it peeks first, elsewhere it reads a byte at a time.
"""

import os
import select
import socket
import stat
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from qm.unix.channel import Channel, Gone, TimedOut
from qm.wire.pop3 import Signal
from qm.wire.pop3auth import Authorization, Login
from qm.wire.record import number, pack, unpack

_PEEK_MAX: Final = 4096  # bytes
_NUMBER_MAX: Final = 1 << 62


class Talk(NamedTuple):
    """What to say to whom, until when."""

    line: bytes  # the greeting, or why the last attempt to log in failed
    delay_s: int  # before it
    last: bool  # and after it hang up
    banner: bytes  # <...>, APOP's timestamp
    offer_apop: bool
    errors_max: int
    deadline_s: int  # of the monotonic clock

    def pack(self) -> bytes:
        return pack(*(value if isinstance(value, bytes) else b"%d" % value for value in self))

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        line, delay, last, banner, offer_apop, errors, deadline = unpack(record, 7)
        flags = number(last, 1) > 0, number(offer_apop, 1) > 0
        numbers = [number(field, _NUMBER_MAX) for field in (delay, errors, deadline)]
        return cls(line, numbers[0], flags[0], banner, flags[1], numbers[1], numbers[2])


class _Commands:
    """The network up to the end of a command; *link* tells that popup has died."""

    def __init__(self, fd: int, link: int, deadline_s: int) -> None:
        self._fd = fd
        self._link = link
        self._deadline_s = deadline_s
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)  # the family does not matter

    def detach(self) -> None:
        """The descriptor is closed by who opened it."""
        if self._socket is not None:
            self._socket.detach()

    def take(self) -> bytes | None:
        """Bytes of at most one command; b"" at the end, None if there is nothing yet."""
        if self._socket is None:
            return os.read(self._fd, 1) if self._ready(self._fd, 0.0) else None
        try:
            seen = self._socket.recv(_PEEK_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return self._socket.recv(seen.find(b"\n") + 1 or len(seen)) if seen else b""

    def wait(self) -> None:
        """Until there is something to take; raises TimedOut at the deadline, Gone when popup has died."""
        if not self._ready(self._fd, self._deadline_s - time.monotonic()):
            raise TimedOut

    def pause(self, delay_s: int) -> None:
        """Let *delay_s* pass; raises Gone when popup has died."""
        if delay_s:
            self._ready(None, delay_s)

    def _ready(self, fd: int | None, within_s: float) -> bool:
        poll = select.poll()
        poll.register(self._link, 0)  # its other end's death is an event that comes unasked
        if fd is not None:
            poll.register(fd, select.POLLIN)
        events = poll.poll(max(0.0, within_s) * 1000)
        if any(ready == self._link for ready, _ in events):
            raise Gone("popup has died")
        return bool(events)


def converse(link: int, talk: Talk, descriptors: Sequence[int]) -> Login | None:
    """Talk on *descriptors* until somebody wants to log in; None if the peer leaves, or has to."""
    fd_in, fd_out = descriptors
    commands = _Commands(fd_in, link, talk.deadline_s)
    channel = Channel(fd_in, fd_out, max(1.0, talk.deadline_s - time.monotonic()))
    server = Authorization(talk.line, talk.banner, offer_apop=talk.offer_apop, errors_max=talk.errors_max)
    try:
        commands.pause(talk.delay_s)
        login = None if talk.last else _login(commands, channel, server)
        channel.write(server.outgoing())
        if login is None:
            channel.hang_up()
        return login
    except (Gone, OSError):
        return None
    finally:
        commands.detach()


def _login(commands: _Commands, channel: Channel, server: Authorization) -> Login | None:
    """The next attempt to log in, None if the peer leaves; replies that are still queued go out before it counts."""
    while True:
        event = server.next_event()
        if isinstance(event, Login):
            return event
        if event is Signal.EOF:
            return None
        data = commands.take()
        if data is None:
            channel.write(server.outgoing())
            commands.wait()
        else:
            server.receive(data)
