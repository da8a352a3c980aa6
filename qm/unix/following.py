"""sendmail -v: who has queued a message sees how it is delivered (docs/INTERNALS.md 1.13).

He listens on a socket that has his pid as its name, in no directory.  Who delivers his message connects to it, and goes
on only if the kernel says that the process there is the one that queued the message: its uid and pid are the
envelope's.  Nobody waits for him: a line that he does not take at once is lost to him, and the delivery goes on.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qm.unix import door, log, privs

LINE_MAX: Final = 1000  # bytes of a line that is told
LISTENERS_MAX: Final = 64  # connections of deliveries at once
FIRST_S: Final = 15.0  # until send has taken the message up
SILENCE_S: Final = 60.0  # until somebody says something more
LIMIT_S: Final = 600.0  # in all
END: Final = b"\0"  # instead of a line, by send: the first try is over

Tell = Callable[[bytes], None]


def _name(pid: int) -> bytes:
    """An abstract name (unix(7)): it is gone with its process."""
    return b"\0qm-follow-%d" % pid


def nobody(line: bytes) -> None:
    """What is told where nobody listens."""


class Teller:
    """Tells lines to the process *pid* of user *uid*, as long as it takes them; closes nothing by itself."""

    def __init__(self, uid: int, pid: int) -> None:
        self._channel: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._channel.setblocking(False)
            if self._channel.connect_ex(_name(pid)) or door.peer(self._channel) != (pid, uid):
                self.close()
        except OSError:
            self.close()

    @property
    def is_heard(self) -> bool:
        return self._channel is not None

    def __call__(self, line: bytes) -> None:
        if self._channel is not None:
            try:
                self._channel.send(line[:LINE_MAX] or b" ")
            except BlockingIOError:
                pass  # he is slow: his loss
            except OSError:
                self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def teller(follower: bytes) -> Teller | None:
    """For the follower of a delivery's record, ``uid.pid``; None if there is none."""
    if not follower:
        return None
    uid, _, pid = follower.partition(b".")
    return Teller(int(uid), int(pid))


def follower(uid: int, pid: int) -> bytes:
    """``uid.pid`` if that process listens, else nothing."""
    found = Teller(uid, pid)
    heard = found.is_heard
    found.close()
    return b"%d.%d" % (uid, pid) if heard else b""


def tell(follower: bytes, line: bytes) -> None:
    """One line to the follower, if there is one."""
    found = teller(follower)
    if found is not None:
        found(line)
        found.close()


class Listener:
    """The place where this process hears what becomes of the messages that it queues.

    Raises OSError, and Temporary where nobody can tell whom to believe.
    """

    def __init__(self) -> None:
        self._trusted = frozenset(privs.seen(name) for name in ("qmails", "qmailr"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.bind(_name(os.getpid()))
        self._socket.listen(LISTENERS_MAX)
        self._channels: dict[int, socket.socket] = {}
        self._ended = False

    def close(self) -> None:
        for channel in (self._socket, *self._channels.values()):
            channel.close()

    def hear(self, say: Tell, first_s: float = FIRST_S) -> bool:
        """Give *say* what qmails and qmailr tell, until send says that the try is over; False if that takes too long.

        No byte of theirs but printable ASCII gets through.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        limit_s = time.monotonic() + LIMIT_S
        until_s = time.monotonic() + first_s
        while not self._ended:
            wait_s = min(limit_s, until_s) - time.monotonic()
            if wait_s <= 0:
                return False
            ready = {fd for fd, _ in poll.poll(wait_s * 1000)}
            heard = [self._read_all(fd, poll, say) for fd in list(self._channels) if fd in ready]
            taken = self._socket.fileno() in ready and self._take(poll)
            if taken or any(heard):
                until_s = time.monotonic() + SILENCE_S
        for fd in list(self._channels):  # what deliveries said before send did
            self._read_all(fd, poll, say)
        return True

    def _take(self, poll: select.poll) -> bool:
        """Whether somebody has come who is believed."""
        with suppress(OSError):
            channel, _ = self._socket.accept()
            channel.setblocking(False)
            if door.uid(channel) not in self._trusted or len(self._channels) >= LISTENERS_MAX:
                channel.close()
                return False
            self._channels[channel.fileno()] = channel
            poll.register(channel, select.POLLIN)
            return True
        return False

    def _read_all(self, fd: int, poll: select.poll, say: Tell) -> bool:
        """Whether there was something.  Who came first is heard out first, so that an outcome follows its session."""
        heard = False
        while self._read(fd, poll, say):
            heard = True
        return heard

    def _read(self, fd: int, poll: select.poll, say: Tell) -> bool:
        """Whether there was something."""
        if fd not in self._channels:
            return False
        try:
            line = self._channels[fd].recv(LINE_MAX)
        except BlockingIOError:
            return False
        except OSError:
            line = b""
        if not line:
            poll.unregister(fd)
            self._channels.pop(fd).close()
        elif line == END:
            self._ended = True
        else:
            say(log.clean(line))
        return bool(line)
