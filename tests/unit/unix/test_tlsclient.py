"""The client of qm-tlsd, with a door that says what a broken or a busy qm-tlsd would."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qm.unix import fds
from qm.unix.tlsclient import Busy, Facts, Failed, TlsClient
from qm.wire.tlsjob import NO, YES, AskReady, Sorry, frame, unpack_question

FACTS = Facts(b"TLSv1.3", b"x", 256, b"", b"", ())
Answer = Callable[[socket.socket, bytes, list[int]], None]


@contextmanager
def door(folder: Path, *answers: Answer) -> Iterator[str]:
    """Each answers one connection's questions, one after another, until it raises ConnectionError or all are used."""
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            for answer in answers:
                channel, _ = listener.accept()
                with channel:
                    record, descriptors = fds.recv_record(channel)
                    answer(channel, record, descriptors)
                    fds.close_all(descriptors)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def _ready(answer: bytes) -> Answer:
    def say(channel: socket.socket, record: bytes, descriptors: list[int]) -> None:
        assert isinstance(unpack_question(record), AskReady)
        if answer:
            fds.send_record(channel, answer)

    return say


def _stream(*pieces: bytes) -> Answer:
    def say(channel: socket.socket, record: bytes, descriptors: list[int]) -> None:
        assert len(descriptors) == 2
        with socket.socket(fileno=os.dup(descriptors[1])) as stream:
            for piece in pieces:
                stream.sendall(piece)

    return say


@contextmanager
def client(path: str) -> Iterator[TlsClient]:
    asker = TlsClient(path)
    yield asker
    asker.close()


@pytest.mark.parametrize("answer, ready", [(YES, True), (NO, False), (b"perhaps\0", False)])
def test_ready(tmp_path: Path, answer: bytes, ready: bool) -> None:
    """Only a yes is one; and it is asked once in a while only."""
    with door(tmp_path, _ready(answer)) as path, client(path) as asker:
        assert asker.ready() is ready
        assert asker.ready() is ready  # the door answers once


def test_closed_at_once(tmp_path: Path) -> None:
    """A qm-tlsd that does not want us has no TLS for us."""
    with door(tmp_path, _ready(b"")) as path, client(path) as asker:
        assert asker.ready() is False


def test_nobody_there(tmp_path: Path) -> None:
    """The failure says what to look for."""
    with client(str(tmp_path / "socket")) as asker:
        assert asker.ready() is False
        with pytest.raises(Busy, match="is qm-tlsd running"):
            asker.serve(0, b"", b"smtp", 1)


def test_served(tmp_path: Path) -> None:
    """The facts come first, in whatever pieces, and the peer's bytes behind them are left in the stream."""
    text = frame(FACTS) + b"EHLO x\r\n"
    with door(tmp_path, _stream(*(text[i : i + 1] for i in range(len(text))))) as path, client(path) as asker:
        plain, facts = asker.serve(0, b"220 go\r\n", b"smtp", 5)
    with plain:
        assert (facts, plain.recv(100), plain.recv(100)) == (FACTS, b"EHLO x\r\n", b"")
        assert plain.getblocking()


@pytest.mark.parametrize(
    "said, kind",
    [
        (frame(Sorry(said=False, why=b"full")), Busy),
        (frame(Sorry(said=True, why=b"the client has gone")), Failed),
        (b"", Failed),
        (frame(FACTS)[:-1], Failed),
        (b"\0\0", Failed),
        (b"\xff\xff" + b"x" * 100, Failed),
        (b"\0\4abc\0", Failed),
    ],
)
def test_no_session(tmp_path: Path, said: bytes, kind: type[Exception]) -> None:
    """Busy only if nothing was said to the peer; what is cut or garbage is a failed handshake: the peer is gone."""
    with door(tmp_path, _stream(said)) as path, client(path) as asker, pytest.raises(kind):
        asker.serve(0, b"", b"smtp", 5)


def test_a_restarted_one_is_found(tmp_path: Path) -> None:
    """A kept connection whose other end has gone is made anew, and no job is lost."""
    with door(tmp_path, _ready(YES), _stream(frame(FACTS))) as path, client(path) as asker:
        assert asker.ready()
        channel = asker._channel
        assert channel is not None
        assert channel.recv(1, socket.MSG_PEEK) == b"", "the other end has gone"
        asker.serve(0, b"", b"smtp", 5)[0].close()
