"""The listener that answers HTTP-01 challenges: what strangers say to it, and how."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.admin.challenges import CONNECTIONS_MAX, Listener, Strange, Webroot
from qm.errors import Permanent, Temporary
from tests.harness.peers import free_port
from tests.harness.waiting import LIMIT_S

ANSWER = b"tok-en." + b"A" * 43


class Served:
    def __init__(self) -> None:
        self.port = free_port()
        self.listener = Listener("127.0.0.1", self.port)
        self.listener.put(b"tok-en", ANSWER)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), LIMIT_S)

    def ask(self, *pieces: bytes) -> bytes:
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.listener.close()


def test_the_answer(served: Served) -> None:
    """To a client of another maker, and to one that writes slowly."""
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/.well-known/acme-challenge/tok-en") as reply:
        assert (reply.status, reply.read()) == (200, ANSWER)
    pieces = (b"GET /.well-known/acme-chal", b"lenge/tok-en HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n")
    assert served.ask(*pieces).endswith(b"\r\n\r\n" + ANSWER)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /.well-known/acme-challenge/ HTTP/1.1\r\n\r\n",
        b"GET /.well-known/acme-challenge/../acme-challenge/tok-en HTTP/1.1\r\n\r\n",
        b"POST /.well-known/acme-challenge/tok-en HTTP/1.1\r\n\r\n",
        b"\0\xff" * 4000,
        b"\r\n\r\n",
    ],
)
def test_nothing_else_is_there(served: Served, request_: bytes) -> None:
    """What is not a question for a known token gets 404, or the end."""
    answer = served.ask(request_)
    assert answer.startswith(b"HTTP/1.1 404 ") or not answer  # a reset may overtake it when there was too much
    assert b"AAAA" not in answer


def test_a_crowd_of_silent_clients(served: Served) -> None:
    """They hold nobody up: the oldest makes room."""
    crowd = [served.connect() for _ in range(CONNECTIONS_MAX + 5)]
    assert served.ask(b"GET /.well-known/acme-challenge/tok-en HTTP/1.0\r\n\r\n").endswith(ANSWER)
    for client in crowd:
        client.close()


@pytest.mark.parametrize("token", [b"", b"../x", b"a/b", b"x" * 129, b"a\0b", b"a\r\nb"])
def test_a_token_that_is_none(served: Served, token: bytes) -> None:
    """What the server calls a token may become a file's name: only base64url is."""
    with pytest.raises(Strange):
        served.listener.put(token, token + b"." + b"A" * 43)


def test_a_port_that_is_taken(served: Served) -> None:
    """It is a temporary failure that tells of the other way."""
    with pytest.raises(Temporary, match="use its --webroot"):
        Listener("127.0.0.1", served.port)


def test_every_address() -> None:
    """Without an address it listens for IPv4 and IPv6."""
    port = free_port()
    listener = Listener("", port)
    listener.put(b"tok-en", ANSWER)
    for host in ("127.0.0.1", "[::1]"):
        with urllib.request.urlopen(f"http://{host}:{port}/.well-known/acme-challenge/tok-en") as reply:
            assert reply.read() == ANSWER
    listener.close()


def test_webroot_is_for_another_user(tmp_path: Path) -> None:
    """What is made there can be read by a web server's user, under any umask."""
    before = os.umask(0o077)
    try:
        root = Webroot(str(tmp_path))
        root.put(b"tok-en", ANSWER)
    finally:
        os.umask(before)
    made = list(tmp_path.rglob("*"))
    assert {path.name: path.stat().st_mode & 0o777 for path in made} == {
        ".well-known": 0o755, "acme-challenge": 0o755, "tok-en": 0o644,
    }  # fmt: skip
    root.close()


def test_webroot_follows_no_link(tmp_path: Path) -> None:
    """Neither a directory nor a file that a web server's user has planted leads root elsewhere."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.well-known").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Permanent):
        Webroot(str(tmp_path / "a"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    folder = tmp_path / "b/.well-known/acme-challenge"
    folder.mkdir(parents=True)
    (folder / "tok-en").symlink_to(secret)
    root = Webroot(str(tmp_path / "b"))
    root.put(b"tok-en", ANSWER)
    assert (folder / "tok-en").read_bytes() == ANSWER
    root.close()
    assert (secret.read_text(), list(folder.iterdir())) == ("mine", [])
