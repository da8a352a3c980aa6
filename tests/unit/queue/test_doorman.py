"""The doorman's own words to who must leave; what it does with connections is tested on the door (tests/black)."""

import socket
from contextlib import suppress

from qm.queue import doorman
from qm.wire import door, queuecode


class _Refilled(socket.socket):
    """Our end of a connection whose client sends as fast as we read."""

    client: socket.socket

    def recv(self, size: int, flags: int = 0) -> bytes:
        with suppress(BrokenPipeError):
            self.client.send(b"more", socket.MSG_NOSIGNAL)
        return super().recv(size, flags)


def test_who_never_stops_talking_is_sent_away() -> None:
    """A client that goes on sending while it is refused hears the answer, and keeps nobody."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.send(b"something")
        channel = _Refilled(fileno=ours.detach())
        channel.client = theirs
        doorman._refuse(channel, queuecode.BUSY)
        assert door.parse_answer(theirs.recv(4096)).code == queuecode.BUSY
        assert theirs.recv(1) == b""
