"""The network as two descriptors: time-outs, ends, and slow readers, on sockets and on pipes."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from qm.unix.channel import Channel, Gone, TimedOut

SHORT_S = 0.05
LONG_S = 10.0


class Ends:
    """A channel's two descriptors, and the peer's."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind == "socket":
            ours, theirs = socket.socketpair()
            self.fd_in = self.fd_out = ours.detach()
            self.peer_in = self.peer_out = theirs.detach()
        else:
            self.fd_in, self.peer_out = os.pipe()
            self.peer_in, self.fd_out = os.pipe()

    def channel(self, timeout_s: float) -> Channel:
        return Channel(self.fd_in, self.fd_out, timeout_s)

    def hang_up(self) -> None:
        for fd in {self.peer_in, self.peer_out}:
            os.close(fd)
        self.peer_in = self.peer_out = -1

    def close(self) -> None:
        for fd in {self.fd_in, self.fd_out, self.peer_in, self.peer_out} - {-1}:
            os.close(fd)


@pytest.fixture(params=["socket", "pipe"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ends = Ends(request.param)
    yield ends
    ends.close()


def test_what_came_is_read_at_once(ends: Ends) -> None:
    """read gives what there is, not more than asked for, and waits for no more."""
    os.write(ends.peer_out, b"hello")
    channel = ends.channel(LONG_S)
    assert channel.read(2) == b"he"
    assert channel.read() == b"llo"


def test_the_end_is_empty(ends: Ends) -> None:
    """A peer that closes in order reads as b"", again and again."""
    ends.hang_up()
    channel = ends.channel(LONG_S)
    assert channel.read() == channel.read() == b""


def test_silence_times_out(ends: Ends) -> None:
    """A peer that says nothing for the time-out raises TimedOut, which is a kind of Gone."""
    with pytest.raises(TimedOut):
        ends.channel(SHORT_S).read()
    assert issubclass(TimedOut, Gone)


def test_the_time_out_may_change(ends: Ends) -> None:
    """set_timeout is in force from the next wait."""
    channel = ends.channel(LONG_S)
    channel.set_timeout(SHORT_S)
    with pytest.raises(TimedOut):
        channel.read()


def test_no_time_at_all_is_not_for_ever(ends: Ends) -> None:
    """A time-out of 0, which means for ever to the kernel, ends at once."""
    with pytest.raises(TimedOut):
        ends.channel(0).read()


def test_writing_to_nobody_is_gone(ends: Ends) -> None:
    """A peer that has left raises Gone, and no signal ends us."""
    ends.hang_up()
    with pytest.raises(Gone):
        ends.channel(LONG_S).write(b"x")


def test_a_peer_that_never_reads_times_out(ends: Ends) -> None:
    """A write that fills all buffers ends after the time-out."""
    with pytest.raises(TimedOut):
        ends.channel(SHORT_S).write(bytes(10_000_000))


def test_a_slow_reader_gets_everything(ends: Ends) -> None:
    """A write larger than all buffers arrives whole, in order."""
    data = os.urandom(3_000_000)
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(os.read(ends.peer_in, 50_000))

    reader = threading.Thread(target=read)
    reader.start()
    ends.channel(LONG_S).write(memoryview(data))
    reader.join(LONG_S)
    assert bytes(got) == data


def test_a_socket_and_a_pipe_may_be_mixed() -> None:
    """A program may be given any two descriptors."""
    sockets, pipes = Ends("socket"), Ends("pipe")
    channel = Channel(sockets.fd_in, pipes.fd_out, SHORT_S)
    channel.write(b"out")
    assert os.read(pipes.peer_in, 10) == b"out"
    with pytest.raises(TimedOut):
        channel.read()
    sockets.close(), pipes.close()


def test_a_reset_is_gone() -> None:
    """A connection that the peer has reset raises Gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with ours, pytest.raises(Gone):
            Channel(ours.fileno(), ours.fileno(), LONG_S).read()


def test_the_descriptors_stay_open(ends: Ends) -> None:
    """A channel borrows its descriptors; they outlive it."""
    channel = ends.channel(LONG_S)
    channel.set_timeout(1)
    del channel
    os.fstat(ends.fd_in), os.fstat(ends.fd_out)
