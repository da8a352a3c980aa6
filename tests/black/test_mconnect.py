"""mconnect and http@ with a server, beside those of ucspi-tcp."""

import socket
import subprocess
import threading

import pytest

from qm.mconnect import Body, visible
from tests.harness.tcpserver import ROOT
from tests.harness.waiting import LIMIT_S

PAGE = b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n\r\nmore\n"


def _talk(program: str, *words: str, text: bytes, until: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, what it wrote, what the server heard."""
    heard = b""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            nonlocal heard
            channel, _ = door.accept()
            with channel:
                channel.settimeout(LIMIT_S)
                while not heard.endswith(until):
                    heard += channel.recv(4096)
                channel.sendall(PAGE)

        thread = threading.Thread(target=serve)
        thread.start()
        port = str(door.getsockname()[1])
        command = [program, "127.0.0.1", *words, port]
        done = subprocess.run(
            command, input=text, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=LIMIT_S, check=False
        )
        thread.join(LIMIT_S)
    return done.returncode, done.stdout, heard.replace(port.encode(), b"PORT")


@pytest.mark.needs("/usr/bin/mconnect")
@pytest.mark.parametrize(("name", "words", "until"), [("mconnect", (), b"QUIT\r\n"), ("http@", ("page",), b"\r\n\r\n")])
def test_as_ucspi_tcp(name: str, words: tuple[str, ...], until: bytes) -> None:
    """What is sent, what is shown and the exit code are those of ucspi-tcp's."""
    ours = _talk(str(ROOT / "bin" / name), *words, text=b"NOOP\nQUIT\n", until=until)
    if name == "http@":  # theirs loses empty lines of the page
        ours = (ours[0], ours[1].replace(b"\n\n", b"\n"), ours[2])
    assert ours == _talk(f"/usr/bin/{name}", *words, text=b"NOOP\nQUIT\n", until=until)
    assert ours[0] == 0


def test_a_terminal_obeys_nothing() -> None:
    """What who@, date@ and finger@ show is what cat -v shows."""
    every = bytes(range(256))
    assert visible(every) == subprocess.run(["cat", "-v"], input=every, capture_output=True, check=True).stdout


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_bodies(size: int) -> None:
    """The header ends at its first empty line, however the page is cut."""
    body = Body()
    pieces = [PAGE[i : i + size] for i in range(0, len(PAGE), size)]
    assert b"".join(body(piece) for piece in (*pieces, b"")) == b"body\n\nmore\n"


@pytest.mark.parametrize("name", ["mconnect", "who@", "date@", "finger@", "http@"])
def test_usage(name: str) -> None:
    """Too many words are exit 100."""
    done = subprocess.run([ROOT / "bin" / name, "a", "b", "c", "d"], capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 100
    assert f"usage: {name}".encode() in done.stderr
