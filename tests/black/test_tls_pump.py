"""What qm-tlsd does between two sides of which one is slow, or has said its last."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.disk import selfsigned
from tests.harness.barehome import BareHome, Daemon, bare_home, running
from tests.harness.suite import trusting
from tests.harness.waiting import LIMIT_S

from qm.unix.tlsclient import Facts, TlsClient  # isort: skip  the program's side

LARGE = 3_000_000  # bytes
TOO_MUCH = 64_000_000  # more than all buffers between


@pytest.fixture(scope="module")
def tlsd() -> Iterator[tuple[BareHome, Daemon]]:
    with bare_home(None) as home:
        (home.folder / "tls").mkdir()
        selfsigned.make(str(home.folder / "control/servercert.pem"), ["me.example"])
        with running(home, "qm-tlsd") as daemon:
            yield home, daemon


@pytest.fixture
def session(tlsd: tuple[BareHome, Daemon]) -> Iterator["Session"]:
    session = Session(tlsd[0])
    yield session
    session.client.close()
    session.program.close()


class Session:
    """A client that does TLS, and the plain stream that a program would have."""

    def __init__(self, home: BareHome) -> None:
        before = os.getcwd()
        os.chdir(home.folder)
        try:
            self._start()
        finally:
            os.chdir(before)

    def _start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            plain = socket.create_connection(listener.getsockname(), LIMIT_S)
            accepted, _ = listener.accept()
        tls: list[ssl.SSLSocket] = []
        shake = threading.Thread(target=lambda: tls.append(trusting().wrap_socket(plain)))
        shake.start()
        with accepted:
            asker = TlsClient()
            self.program, self.facts = asker.serve(accepted.fileno(), b"", b"smtp", LIMIT_S)
            asker.close()
        shake.join()
        self.client = tls[0]
        self.program.settimeout(LIMIT_S)


def _all(side: socket.socket) -> bytes:
    return b"".join(iter(lambda: side.recv(65536), b""))


def test_what_was_agreed(session: Session) -> None:
    """It is told before the first byte, and a word goes either way."""
    assert isinstance(session.facts, Facts)
    assert session.facts.version == b"TLSv1.3"
    session.client.sendall(b"hello")
    assert session.program.recv(100) == b"hello"
    session.program.sendall(b"well met")
    assert session.client.recv(100) == b"well met"


@pytest.mark.parametrize("direction", ["to the client", "to the program"])
def test_a_slow_reader(tlsd: tuple[BareHome, Daemon], session: Session, direction: str) -> None:
    """Who does not read makes who writes wait: the worker holds no more than its buffers, and nothing is lost."""
    piece = os.urandom(16384)
    sides = (session.program, session.client)
    writer, reader = sides if direction == "to the client" else sides[::-1]
    writer.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < TOO_MUCH:
            sent += writer.send(piece)
    assert 0 < sent < TOO_MUCH
    assert max(map(_memory, tlsd[1].workers())) < TOO_MUCH
    heard = _exactly(reader, sent)
    assert heard == (piece * (sent // len(piece) + 1))[:sent]


def _memory(pid: int) -> int:
    """Bytes that a process has of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) * 1024


@pytest.mark.parametrize("direction", ["to the client", "to the program"])
def test_much_in_both_directions(session: Session, direction: str) -> None:
    """While one side says much and hears much, nothing waits for itself."""
    text = os.urandom(LARGE)
    first, second = session.client, session.program
    if direction == "to the client":
        first, second = second, first
    echo = threading.Thread(target=lambda: second.sendall(_exactly(second, LARGE)))
    echo.start()
    heard: list[bytes] = []
    listen = threading.Thread(target=lambda: heard.append(_exactly(first, LARGE)))
    listen.start()
    first.sendall(text)
    listen.join()
    echo.join()
    assert heard == [text]


def _exactly(side: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        piece = side.recv(min(size, 65536))
        assert piece
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def test_the_client_has_said_its_last(session: Session) -> None:
    """Its end reaches the program behind all that it has said; what the program still says reaches the client."""
    session.client.sendall(b"last")
    session.client.settimeout(LIMIT_S)
    plain = socket.socket(fileno=os.dup(session.client.fileno()))
    plain.shutdown(socket.SHUT_WR)
    plain.close()
    assert _all(session.program) == b"last"
    session.program.sendall(b"answer")
    session.program.close()
    assert session.client.recv(100) == b"answer"
    assert session.client.recv(100) == b""


def test_the_program_has_said_its_last(session: Session) -> None:
    """All that it has said reaches the client, however slow that is, and then close_notify."""
    text = os.urandom(LARGE)
    speak = threading.Thread(target=lambda: (session.program.sendall(text), session.program.close()))
    speak.start()
    assert _exactly(session.client, LARGE) == text
    assert session.client.recv(100) == b""  # an end without close_notify raises SSLEOFError
    speak.join()


def test_the_program_dies_unheard(session: Session) -> None:
    """It goes without reading what the client has sent: the client still hears its last words."""
    session.client.sendall(b"x" * 100_000)
    session.program.sendall(b"421 bye\r\n")
    session.program.close()
    assert session.client.recv(100) == b"421 bye\r\n"
    assert session.client.recv(100) == b""


def test_the_client_goes(session: Session) -> None:
    """A reset is an end for the program, in the middle of its speech too."""
    session.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    session.client.close()
    assert _all(session.program) == b""
