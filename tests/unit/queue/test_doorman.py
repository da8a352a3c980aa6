"""The doorman's own words to who must leave; what it does with connections is tested on the door (tests/black)."""

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from qm.disk.control import Controls
from qm.queue import doorman, policy
from qm.unix.loop import Loop
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
        assert door.parse_answer(theirs.recv(4096)).code == queuecode.BUSY == 71
        assert theirs.recv(1) == b""


def test_a_door_that_closes_leaves_nobody_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has connected is told that nothing was taken; who comes later finds the door shut, though it is there yet."""
    monkeypatch.chdir(tmp_path)
    Path("control").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("door")
        listener.listen(8)
        listener.setblocking(False)
        loop = Loop()
        closing = doorman.Doorman(loop, listener, Controls(doorman.CONTROLS), policy.rules(1, 2, 3, 4))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as early:
            early.connect("door")
            early.send(b"a message")
            closing.close()
            assert door.parse_answer(early.recv(4096)).code == queuecode.UNREACHABLE
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late, pytest.raises(ConnectionRefusedError):
            late.connect("door")
        loop.forget()
