"""The real qm-smtpd on descriptors of its own, between a peer, a queue and a userd that the test plays.

The queue and userd here are small real servers on the sockets of a temporary home; they speak the formats of
qm.wire.door and qm.wire.userquery.
"""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qm.disk import cdb
from qm.wire import door, userquery
from qm.wire.envelope import Envelope, decode

ROOT = Path(__file__).parents[2]
PROGRAM = ["/usr/bin/python3", "-bb", "-IS", str(ROOT / "bin" / "qm-smtpd")]
LIMIT_S = 20.0
ROLE = 64911  # whom smtpd becomes when root runs the test
BEGIN = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@mx.example>\r\n"
SERVE = """
import os, socket, sys
sys.path[:0] = sys.argv[1:3]
from qm.smtpd.main import warm
serve = warm([b"qm-smtpd"], {})
listener = socket.socket(fileno=int(sys.argv[3]))
for _ in range(int(sys.argv[4])):
    connection, _ = listener.accept()
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    connection.close()
    serve({b"TCPREMOTEIP": b"192.0.2.1"})
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
"""


class Queued(NamedTuple):
    start: door.Begin
    envelope: Envelope
    message: bytes


class Place:
    """A Unix socket whose connections a thread serves one after another."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._serve = serve
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.settimeout(LIMIT_S)
                self._serve(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LIMIT_S)


class Queue:
    """What stands behind queue/socket: it keeps what is committed, and may *break* off or *answer* no."""

    def __init__(self, home: Path) -> None:
        self.queued: list[Queued] = []
        self.answer = door.Answer(0, b"0123456789abcdefgh")
        self.break_after: int | None = None  # datagrams of one connection
        self.place = Place(home / "queue" / "socket", self._serve)

    def _serve(self, connection: socket.socket) -> None:
        stream, start, parts = door.Stream(), door.Begin(), [b""]
        receiving = False
        for count in range(10**9):
            datagram = memoryview(connection.recv(door.DATAGRAM_MAX))
            if not datagram or count == self.break_after:
                return
            match stream.take(datagram) if receiving else door.parse_first(datagram):
                case door.Begin() as start:
                    stream, parts, receiving = door.Stream(), [], True
                    connection.send(door.answer(door.Answer(0, b"")))
                case door.Message(piece):
                    parts.append(bytes(piece))
                case door.Commit(envelope):
                    receiving = False
                    self._commit(connection, Queued(start, decode(envelope), b"".join(parts)))
                case door.Whole(start, envelope, message):
                    self._commit(connection, Queued(start, decode(envelope), bytes(message)))

    def _commit(self, connection: socket.socket, message: Queued) -> None:
        if not self.answer.code:
            self.queued.append(message)
        connection.send(door.answer(self.answer))


def serve_users(connection: socket.socket) -> None:
    """What stands behind users/socket: nobody@ has no mailbox, later@ has to wait, everybody else is there."""
    while record := connection.recv(65536):
        question = userquery.unpack_question(record)
        assert isinstance(question, userquery.AskExists)
        name = question.address.partition(b"@")[0]
        verdict = {b"nobody": userquery.Verdict.NO, b"later": userquery.Verdict.LATER}.get(name, userquery.Verdict.YES)
        connection.send(userquery.pack_exists(userquery.Exists(verdict, b"" if verdict == b"yes" else b"why")))


class Home:
    """A home directory with its two sockets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("control", "queue", "users"):
            (path / name).mkdir(parents=True)
        self.control("me", "mx.example\n")
        self.control("roles", f"qmaild:{ROLE}:{ROLE}\n")
        self.queue = Queue(path)
        self.users = Place(path / "users" / "socket", serve_users)
        for name in ("queue", "users"):
            (path / name / "socket").chmod(0o666)

    def control(self, name: str, text: str) -> None:
        (self.path / "control" / name).write_text(text)

    def start(self, **env: str) -> "Smtpd":
        return Smtpd(self, {"QMHOME": str(self.path), "TCPREMOTEIP": "192.0.2.1", **env})


class Smtpd:
    """One qm-smtpd, and the peer's end of its descriptors."""

    def __init__(self, home: Home, env: dict[str, str]) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(LIMIT_S)
        self._log = (home.path / "log").open("w+b")
        self.process = subprocess.Popen(PROGRAM, stdin=theirs, stdout=theirs, stderr=self._log, env=env, cwd="/")
        theirs.close()
        self._heard = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> bytes:
        """The next reply, its last line only; nothing at the end."""
        while True:
            line, crlf, rest = self._heard.partition(b"\r\n")
            if crlf:
                self._heard = rest
                if line[3:4] != b"-":
                    return line
                continue
            data = self.socket.recv(65536)
            if not data:
                assert not self._heard
                return b""
            self._heard += data

    def codes(self, count: int) -> list[int]:
        return [int(self.hear()[:3]) for _ in range(count)]

    def end(self) -> int:
        """Let it end, with nothing more said; its exit code."""
        assert self.hear() == b""
        self.socket.close()
        return self.process.wait(LIMIT_S)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("ascii")

    def close(self) -> None:
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.queue.place.close()
    home.users.close()


@pytest.fixture
def smtpd(home: Home) -> Iterator[Callable[..., Smtpd]]:
    started: list[Smtpd] = []

    def start(**env: str) -> Smtpd:
        started.append(home.start(**env))
        return started[-1]

    yield start
    for one in started:
        one.close()


Start = Callable[..., Smtpd]


def test_message(home: Home, smtpd: Start) -> None:
    """A message reaches the queue with our Received field, and the log has a line for each step."""
    one = smtpd(TCPREMOTEHOST="client.example")
    assert one.hear() == b"220 mx.example ESMTP"
    one.send(BEGIN + b"DATA\r\n")
    assert one.codes(4) == [250, 250, 250, 354]
    one.send(b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n")
    assert re.fullmatch(rb"250 2\.0\.0 ok [0-9]+ id 0123456789abcdefgh", one.hear())
    assert one.codes(1) == [221]
    assert one.end() == 0
    [message] = home.queue.queued
    assert message.start.head == b"Received: from c.example (client.example [192.0.2.1])\n  by mx.example with ESMTP"
    assert message.start.tail == b"\n  for <u@mx.example>"
    assert [r.address for r in message.envelope.recipients] == [b"u@mx.example"]
    assert message.message == b"Subject: x\n\nbody\n"
    events = re.findall(r"^qm-smtpd: [0-9]+ ([a-z]+) ", one.log(), re.MULTILINE)
    assert events == ["connect", "helo", "mail", "rcpt", "message", "end"]


def test_two_pipes(home: Home) -> None:
    """Descriptors 0 and 1 need not be one socket."""
    session = BEGIN + b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    env = {"QMHOME": str(home.path)}
    done = subprocess.run(PROGRAM, input=session, capture_output=True, env=env, timeout=LIMIT_S, check=True)
    assert done.stdout.endswith(b"\r\n221 2.0.0 mx.example\r\n")
    assert len(home.queue.queued) == 1


def test_mailboxes(home: Home, smtpd: Start) -> None:
    """userd says who is here; when it is not there itself, recipients come again later."""
    one = smtpd()
    one.send(b"MAIL FROM:<>\r\nRCPT TO:<nobody@mx.example>\r\nRCPT TO:<later@mx.example>\r\nRCPT TO:<u@x>\r\n")
    assert one.codes(5) == [220, 250, 550, 451, 553]
    one.socket.shutdown(socket.SHUT_WR)
    assert one.end() == 111
    (home.path / "users" / "socket").unlink()
    two = smtpd()
    two.send(b"MAIL FROM:<>\r\nRCPT TO:<u@mx.example>\r\nQUIT\r\n")
    assert two.codes(4) == [220, 250, 451, 221]
    assert two.end() == 0


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("me", "", "control/me:1: "),
        ("databytes", "5 MB\n", "control/databytes:1: "),
        ("rcpthosts", "a\nb\0c\n", "control/rcpthosts:2: "),
    ],
)
def test_broken_control(home: Home, smtpd: Start, name: str, text: str, complaint: str) -> None:
    """A broken control file is told to the log with file and line, and to the peer as 421."""
    home.control(name, text)
    one = smtpd()
    assert one.hear() == b"421 4.3.0 out of order, please try again later"
    assert one.end() == 111
    assert complaint in one.log()


def test_missing_me(home: Home, smtpd: Start) -> None:
    """Without a name we take no mail."""
    (home.path / "control" / "me").unlink()
    one = smtpd()
    assert one.codes(1) == [421]
    assert one.end() == 111
    assert "control/me:1: missing" in one.log()


def test_no_home(smtpd: Start) -> None:
    """Without a home there is nothing to say, and the exit code is temporary."""
    one = smtpd(QMHOME="/nonexistent")
    assert one.end() == 111
    assert "/nonexistent" in one.log()


def test_morercpthosts(home: Home, smtpd: Start) -> None:
    """morercpthosts.cdb is asked; a corrupt one makes only those wait who need it."""
    path = home.path / "control" / "morercpthosts.cdb"
    cdb.write(str(path), [(b"more.example", b""), (b".dot.example", b"")])
    rcpts = b"".join(
        b"RCPT TO:<u@%b>\r\n" % d for d in (b"MORE.example", b"x.dot.example", b"dot.example", b"mx.example")
    )
    one = smtpd()
    one.send(b"MAIL FROM:<>\r\n" + rcpts + b"QUIT\r\n")
    assert one.codes(7) == [220, 250, 250, 250, 553, 250, 221]
    path.write_bytes(path.read_bytes()[:2100])
    two = smtpd()
    two.send(b"MAIL FROM:<>\r\n" + rcpts + b"QUIT\r\n")
    assert two.codes(7) == [220, 250, 451, 451, 451, 250, 221]
    assert two.end() == 0
    assert "control/morercpthosts.cdb" in two.log()


def test_no_queue(home: Home, smtpd: Start) -> None:
    """A queue failure is temporary, and said before 354."""
    (home.path / "queue" / "socket").unlink()
    one = smtpd()
    one.send(BEGIN + b"DATA\r\nQUIT\r\n")
    assert one.codes(6) == [220, 250, 250, 250, 451, 221]
    assert one.end() == 0


@pytest.mark.parametrize(
    ("code", "want"), [(53, b"451 4.3.0 "), (11, b"554 5.1.3 "), (31, b"554 5.3.0 "), (81, b"451 4.3.0 ")]
)
def test_queue_says_no(home: Home, smtpd: Start, code: int, want: bytes) -> None:
    """What the queue refuses is refused, with its kind; its own bugs are temporary."""
    home.queue.answer = door.Answer(code, b"")
    one = smtpd()
    one.send(BEGIN + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    assert one.codes(5) == [220, 250, 250, 250, 354]
    assert one.hear().startswith(want)
    assert one.codes(1) == [221]


@pytest.mark.parametrize("datagrams", [0, 1, 2, 20])
def test_queue_dies(home: Home, smtpd: Start, datagrams: int) -> None:
    """A queue that breaks off in the middle of a message is a temporary failure, and the session goes on."""
    home.queue.break_after = datagrams
    one = smtpd()
    one.send(BEGIN + b"DATA\r\n" + (b"x" * 998 + b"\r\n") * 3000 + b".\r\n")
    assert one.codes(5) == [220, 250, 250, 250, 354]
    assert one.hear().startswith(b"451 4.")
    home.queue.break_after = None
    one.send(BEGIN[16:] + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    assert one.codes(5) == [250, 250, 354, 250, 221]
    assert one.end() == 0
    assert [message.message for message in home.queue.queued] == [b"x\n"]


def test_cut_off(home: Home, smtpd: Start) -> None:
    """A client that goes in the middle of a message, small or large, leaves nothing."""
    for size in (1, 3000):
        one = smtpd()
        one.send(BEGIN + b"DATA\r\n" + (b"x" * 998 + b"\r\n") * size)
        one.socket.shutdown(socket.SHUT_WR)
        assert one.codes(5) == [220, 250, 250, 250, 354]
        assert one.end() == 111
    assert not home.queue.queued


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\n"])
def test_smuggling(home: Home, smtpd: Start, ending: bytes) -> None:
    """A bare CR or LF gets the message refused and the connection closed, in one segment and in two."""
    text = b"Subject: x\r\n\r\nbody" + ending + BEGIN + b"DATA\r\nevil\r\n.\r\n"
    for pieces in ([text], [text[:20], text[20:]]):
        one = smtpd()
        one.send(BEGIN + b"DATA\r\n")
        assert one.codes(5) == [220, 250, 250, 250, 354]
        for piece in pieces:
            one.send(piece)
        assert one.hear() == b"554 5.6.0 bare CR or LF in the message"
        assert one.process.wait(LIMIT_S) == 0
    assert not home.queue.queued


def test_silent(home: Home, smtpd: Start) -> None:
    """A client that says nothing is told 421 after timeoutsmtpd, also in the middle of a message after timeoutdata."""
    home.control("timeoutsmtpd", "1\n")
    home.control("timeoutdata", "1\n")
    for said, want in ((b"", [220, 421]), (BEGIN + b"DATA\r\nx\r\n", [220, 250, 250, 250, 354, 421])):
        one = smtpd()
        one.send(said)
        assert one.codes(len(want)) == want
        assert one.end() == 111
    assert not home.queue.queued


def test_deaf(home: Home, smtpd: Start) -> None:
    """A client that sends commands and never reads is left after timeoutsmtpd."""
    for name, text in (("timeoutsmtpd", "1\n"), ("maxcommands", "0\n")):
        home.control(name, text)
    one = smtpd()
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            one.send(b"HELP\r\n" * 10_000)
    assert one.process.wait(LIMIT_S) == 111


def test_large_message(home: Home, smtpd: Start) -> None:
    """50 MB pass through and are never held: the program stays small."""
    one = smtpd()
    one.send(BEGIN + b"DATA\r\n")
    assert one.codes(5) == [220, 250, 250, 250, 354]
    block = (b"y" * 62 + b"\r\n") * 1024
    for _ in range(800):
        one.send(block)
    one.send(b".\r\n")
    assert one.codes(1) == [250]
    status = Path(f"/proc/{one.process.pid}/status").read_text()
    [peak_kib] = map(int, re.findall(r"VmHWM:\s+([0-9]+) kB", status))
    one.send(b"QUIT\r\n")
    assert one.codes(1) == [221]
    assert one.end() == 0
    assert home.queue.queued[0].message == block.replace(b"\r", b"") * 800
    assert peak_kib < 40_000


def test_endless_message(home: Home, smtpd: Start) -> None:
    """A message of 10 GB is refused while it streams: 552, then the connection is closed."""
    home.control("databytes", "1000000\n")
    one = smtpd()
    one.send(BEGIN + b"DATA\r\n")
    assert one.codes(5) == [220, 250, 250, 250, 354]
    sent, block = 0, b"x" * 65534 + b"\r\n"
    with pytest.raises(ConnectionError):
        while sent < 10_000_000_000:
            one.send(block)
            sent += len(block)
    assert sent < 100_000_000
    assert one.hear() == b"552 5.3.4 message too big"
    assert one.process.wait(LIMIT_S) == 0
    assert not home.queue.queued


def test_warm(home: Home) -> None:
    """One process serves many sessions; it keeps its connections, follows control files and outlives broken ones."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home.path / "smtp"))
    listener.listen()
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, "-bb", "-IS", "-c", SERVE, str(ROOT), packages, str(listener.fileno()), "4"]

    def session(domain: bytes) -> list[bytes]:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(LIMIT_S)
            peer.connect(str(home.path / "smtp"))
            peer.sendall(b"MAIL FROM:<>\r\nRCPT TO:<u@%b>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n" % domain)
            heard = b""
            while data := peer.recv(65536):
                heard += data
        return [line[:3] for line in heard.splitlines()]

    with (home.path / "log").open("w+b") as log:
        with subprocess.Popen(command, stderr=log, cwd=home.path, pass_fds=[listener.fileno()]) as process:
            listener.close()
            sent = [b"220", b"250", b"250", b"354", b"250", b"221"]
            assert session(b"mx.example") == sent
            home.control("rcpthosts", "new.example\n")
            assert session(b"new.example") == sent
            home.control("maxhops", "many\n")
            (home.path / "control" / "me").unlink()
            assert session(b"new.example") == sent
            home.control("me", "other.example\n")
            assert session(b"mx.example")[2] == b"553"
        assert process.returncode == 0
        text = (home.path / "log").read_text()
    assert "control/maxhops:1: not a number of fields; keeping the last good value" in text
    assert "control/me:1: missing or empty" in text
    assert len(home.queue.queued) == 3
    assert home.queue.place.connections == home.users.connections == 1


@pytest.mark.needs_root
def test_root_does_not_read_the_network(home: Home) -> None:
    """Started by root without another user, smtpd is qmaild for good before it says a word."""
    smtpd = home.start()
    assert smtpd.hear().startswith(b"220 ")
    status = Path(f"/proc/{smtpd.process.pid}/status").read_text()
    assert re.search(rf"^Uid:\t{ROLE}\t{ROLE}\t{ROLE}\t{ROLE}$", status, re.MULTILINE)
    assert re.search(rf"^Gid:\t{ROLE}\t{ROLE}\t{ROLE}\t{ROLE}$", status, re.MULTILINE)
    assert re.search(rf"^Groups:\t{ROLE} $", status, re.MULTILINE)
    smtpd.send(b"QUIT\r\n")
    assert smtpd.codes(1) == [221]
    assert smtpd.end() == 0
    smtpd.close()
