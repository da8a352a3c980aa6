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
from typing import Final

from qm.errors import Temporary
from qm.popup.talk import Talk
from qm.unix import log
from qm.unix.channel import Channel, Gone, TimedOut
from qm.unix.userclient import UserClient
from qm.wire import saslstep
from qm.wire.pop3 import Signal
from qm.wire.pop3auth import Authorization, End, Event, NoLogin
from qm.wire.pop3login import Left, Login, Report, Stls, failed
from qm.wire.userquery import AskLogin, AskScram, Later, LoginAnswer, ScramAnswer

NAME: Final = b"qm-popup"
_PEEK_MAX: Final = 4096  # bytes


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

    def pending(self) -> bool:
        """Whether something has come already, or the end."""
        return self._ready(self._fd, 0.0)

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


def converse(link: int, users: UserClient, talk: Talk, descriptors: Sequence[int]) -> Report:
    """Talk on *descriptors* until somebody wants to log in, or TLS; Left if the peer leaves, or has to."""
    fd_in, fd_out = descriptors
    commands = _Commands(fd_in, link, talk.deadline_s)
    channel = Channel(fd_in, fd_out, max(1.0, talk.deadline_s - time.monotonic()))
    end = End(talk.after, talk.last)
    server = Authorization(talk.line, talk.banner, talk.offer, talk.peer, talk.errors_max, end)
    try:
        commands.pause(talk.delay_s)
        report = _hear(commands, channel, server, users, talk)
        channel.write(server.outgoing())
        if isinstance(report, Left):
            channel.hang_up()
        return report
    except (Gone, OSError):
        return Left()
    finally:
        commands.detach()


def _hear(commands: _Commands, channel: Channel, server: Authorization, users: UserClient, talk: Talk) -> Report:
    """What the peer wants; replies that are still queued go out before it counts."""
    while True:
        event = server.next_event()
        while isinstance(event, AskLogin | AskScram):
            event = server.answered(_answer(users, event)) or Signal.NEED_DATA
        report = _report(event, commands, server, talk)
        if report is not None:
            return report
        if event is Signal.NEED_DATA:
            data = commands.take()
            if data is None:
                channel.write(server.outgoing())
                commands.wait()
            else:
                server.receive(data)


def _report(event: Event, commands: _Commands, server: Authorization, talk: Talk) -> Report | None:
    """What of *event* is for the other half; None if the peer goes on talking to us."""
    match event:
        case Login():
            return event
        case Stls():
            if not commands.pending():
                return event
            server.injected()
        case NoLogin():
            _note(event, talk.peer.address)
            return None if event.answered else failed(event.refusal)
        case Signal.EOF:
            return Left()
    return None


def _answer(users: UserClient, question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
    try:
        return users.answer(question)
    except Temporary as error:
        return Later(str(error).encode("utf-8", "backslashreplace"))


def _note(event: NoLogin, address: bytes) -> None:
    """One line for a login that nobody else hears of."""
    words = (event.name or b"?", address or b"?", event.mechanism[: saslstep.METHOD_MAX])
    name, place, mechanism = (log.word(word).decode("ascii") for word in words)
    log.warning(NAME, f"login {name} from {place}: {mechanism}: {os.fsdecode(event.refusal.why)}")
