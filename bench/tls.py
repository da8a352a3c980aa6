"""Sessions under TLS, next to Debian's Postfix and Dovecot with the same certificate (ECDSA on P-256).

- starttls: SMTP with STARTTLS on port 25, until all messages are in the Maildir.  With TLS 1.3 Postfix sends a ticket
  and then its reply, which the kernel holds back until the client has acknowledged the ticket (Nagle), for 40 ms; with
  TLS 1.2 it does not wait.
- submission: AUTH PLAIN under STARTTLS, as it is on port 587.  Postfix asks Dovecot for the password, which has it in
  clear: it would compute a hash at each login, while ours remembers what it has verified.  So neither computes one.
- pop3tls: POP3 on port 995, and with STLS on port 110.

The clients are Python's, the same for both, on the same cores: CPU figures are of the servers alone.
"""

import multiprocessing
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Final

from bench import peers, pop3, processes
from bench.pairs import Figures, compare
from bench.peers import MAIL_UID, Peer
from tests.harness.suite import DOMAIN, trusting

CLIENTS: Final = 4
MESSAGE: Final = b"Subject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 50
BIG_BYTES: Final = 10_000_000
IDLE: Final = 30  # sessions; quickstart's listener takes 40
PATIENCE_S: Final = 30.0
_LOGIN: Final = b64encode(b"\0ann\0secret")


class _Session:
    """SMTP with STARTTLS."""

    def __init__(self, port: int, context: ssl.SSLContext, resume: ssl.SSLSession | None = None) -> None:
        network = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        network.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream: socket.socket = network
        self.hear(b"")
        self.hear(b"EHLO client.example\r\n")
        self.hear(b"STARTTLS\r\n")
        self.tls = context.wrap_socket(network, server_hostname=DOMAIN, session=resume)
        self._stream = self.tls
        self.hear(b"EHLO client.example\r\n")

    def hear(self, command: bytes, replies: int = 1) -> bytes:
        """Say *command*; the last of *replies*, of which each must promise something."""
        self._stream.sendall(command)
        data = b""
        while True:
            lines = data.split(b"\r\n")[:-1]
            last = [line for line in lines if line[3:4] == b" "]
            if any(line[:1] not in b"23" for line in last):
                raise SystemExit(f"bench: {command[:60]!r}: {data!r}")
            if len(last) >= replies:
                return last[-1]
            piece = self._stream.recv(65536)
            if not piece:
                raise SystemExit(f"bench: {command[:60]!r}: the server closed after {data!r}")
            data += piece

    def send(self, message: bytes, sender: bytes = b"bob@elsewhere.example") -> None:
        self.hear(b"MAIL FROM:<%b>\r\nRCPT TO:<ann@%b>\r\nDATA\r\n" % (sender, DOMAIN.encode()), 3)
        self.hear(message + b".\r\n")

    def close(self) -> None:
        self.hear(b"QUIT\r\n")
        self._stream.close()


Client = Callable[[int, int], None]  # port, sessions


def _incoming(port: int, sessions: int, each: int = 1, resume: bool = False, message: bytes = MESSAGE) -> None:
    """Sessions with *each* messages; with *resume*, each takes up the one before if the server lets it."""
    _sessions(trusting(), port, sessions, each, resume, message)


def _incoming_1_2(port: int, sessions: int) -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _sessions(context, port, sessions, 1, False, MESSAGE)


def _sessions(context: ssl.SSLContext, port: int, sessions: int, each: int, resume: bool, message: bytes) -> None:
    before = None
    for _ in range(sessions):
        session = _Session(port, context, before)
        for _ in range(each):
            session.send(message)
        before = session.tls.session if resume else None
        session.close()


def _big(port: int, sessions: int) -> None:
    _incoming(port, sessions, message=b"Subject: big\r\n\r\n" + (b"x" * 78 + b"\r\n") * (BIG_BYTES // 80))


def _submitting(port: int, sessions: int) -> None:
    context = trusting()
    for _ in range(sessions):
        session = _Session(port, context)
        session.hear(b"AUTH PLAIN %b\r\n" % _LOGIN)
        session.send(b"From: ann@%b\r\n" % DOMAIN.encode() + MESSAGE, b"ann@" + DOMAIN.encode())
        session.close()


def _pop3(port: int, context: ssl.SSLContext, stls: bool) -> ssl.SSLSocket:
    """A connection under TLS; the greeting is still to come, but with *stls* it has been heard."""
    network = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    network.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for command in (b"", b"STLS\r\n") if stls else ():
        network.sendall(command)
        _hear_ok(network)
    return context.wrap_socket(network, server_hostname=DOMAIN)


def _hear_ok(stream: socket.socket) -> None:
    """A line that says +OK."""
    line = b""
    while not line.endswith(b"\r\n"):
        piece = stream.recv(512)
        line += piece
        if not piece or not line.startswith(b"+OK"[: len(line)]):
            raise SystemExit(f"bench: {line!r}")


def _fetching(port: int, sessions: int, user: str, stls: bool) -> None:
    context = trusting()
    for _ in range(sessions):
        pop3.talk(_pop3(port, context, stls), user, "secret", greeted=stls)


def _shaking_hands(port: int, sessions: int, stls: bool) -> None:
    """To the first reply under TLS, and no further."""
    context = trusting()
    for _ in range(sessions):
        with _pop3(port, context, stls) as tls:
            if stls:
                tls.sendall(b"USER ann\r\n")
            _hear_ok(tls)


def _load(
    peer: Peer, clients: list[tuple[Client, tuple[object, ...]]], count: int, done: Callable[[], bool]
) -> Figures:
    """Run *clients*, which do *count* pieces of work in all, until *done*."""
    cpu_s = peer.cpu_s()
    began_s = time.monotonic()
    running = [multiprocessing.Process(target=target, args=(peer.port, *more)) for target, more in clients]
    for client in running:
        client.start()
    for client in running:
        client.join()
        if client.exitcode:
            raise SystemExit("bench: a client failed")
    peers.wait_until(done, 120.0)
    took_s = time.monotonic() - began_s
    return Figures(count / took_s, (peer.cpu_s() - cpu_s) / count * 1000)


def _messages(peer: Peer, client: Client, sessions: int, *more: object, clients: int = CLIENTS) -> Figures:
    """Until all are delivered; *more* begins with the messages of a session, if there are several."""
    each = int(str(more[0])) if more else 1
    count = sessions // clients * clients * each
    before = peer.delivered()
    todo = [(client, (sessions // clients, *more))] * clients
    return _load(peer, todo, count, lambda: peer.delivered() >= before + count)


def starttls(rounds: int, messages: int, say: Callable[[str], None]) -> None:
    with peers.qm() as (suite, ours), peers.postfix(peers.postfix_tls(suite.home / "control/servercert.pem")) as theirs:
        loads: list[tuple[str, Callable[[Peer], Figures]]] = [
            ("a full handshake for each", lambda p: _messages(p, _incoming, messages)),
            ("a full handshake of TLS 1.2 for each", lambda p: _messages(p, _incoming_1_2, messages)),
            ("resumed if it can be", lambda p: _messages(p, _incoming, messages, 1, True)),
            ("20 messages a session", lambda p: _messages(p, _incoming, messages // 20, 20)),
            (f"{BIG_BYTES // 10**6} MB each, one client", lambda p: _messages(p, _big, 5, clients=1)),
        ]
        for peer in (ours, theirs):
            _messages(peer, _incoming, 40)  # warm
        for what, once in loads:
            for line in compare(ours, theirs, rounds, f"STARTTLS, {what}: messages", once):
                say(line)


def submission(rounds: int, messages: int, say: Callable[[str], None]) -> None:
    passwords = {"ann": "{PLAIN}secret"}
    limits = {"limitmessages": "1000000\n", "limitrecipients": "1000000\n"}
    with peers.qm("submit", limits) as (suite, ours), peers.dovecot_auth(passwords) as (path, dovecot_pid):
        more = peers.postfix_tls(suite.home / "control/servercert.pem") + peers.postfix_sasl(path)
        with peers.postfix(more, (dovecot_pid,)) as theirs:
            for peer in (ours, theirs):
                _messages(peer, _submitting, 40)  # warm; the password is known then
            label = "submission, AUTH PLAIN under STARTTLS, each: messages"
            for line in compare(ours, theirs, rounds, label, lambda p: _messages(p, _submitting, messages)):
                say(line)


Todo = list[tuple[Client, tuple[object, ...]]]


def pop3tls(rounds: int, sessions: int, say: Callable[[str], None]) -> None:
    users = [f"user{client}" for client in range(CLIENTS)]
    passwords = dict.fromkeys(users, "{PLAIN}secret")
    with (
        peers.qm("pop3s") as (suite, ours),
        peers.dovecot(passwords, suite.home / "control/servercert.pem") as theirs,
    ):
        for name in users:
            maildir = suite.add_user(name, "secret")
            pop3.fill(maildir, maildir.stat().st_uid)
            pop3.fill(theirs.maildir / name / "Maildir", MAIL_UID)
        warm: Todo = [(_fetching, (1, user, False)) for user in users]
        for peer in (ours, theirs):
            _load(peer, warm, CLIENTS, lambda: True)  # passwords are known then
        _pop3_rows((ours, theirs), False, rounds, sessions // CLIENTS, say)
        clear = ours._replace(port=suite.port("pop3")), theirs._replace(port=theirs.stls_port)
        _pop3_rows(clear, True, rounds, sessions // CLIENTS, say)
        a, b = (_idle_mb(peer) for peer in (ours, theirs))
        say(f"| each of {IDLE} POP3 sessions under TLS before login, PSS MB | {a:.2f} | {b:.2f} | {a / b:.2f} |")


def _pop3_rows(pair: tuple[Peer, Peer], stls: bool, rounds: int, each: int, say: Callable[[str], None]) -> None:
    """*each* client has so many sessions."""
    kind, first = ("with STLS", "first reply") if stls else ("under TLS", "greeting")
    count = each * CLIENTS
    loads: list[tuple[str, Todo]] = [
        ("whole: sessions", [(_fetching, (each, f"user{client}", stls)) for client in range(CLIENTS)]),
        (f"to the {first}: handshakes", [(_shaking_hands, (each, stls))] * CLIENTS),
    ]
    for what, todo in loads:
        label = f"POP3 {kind}: {what}"
        for line in compare(*pair, rounds, label, lambda p, t=todo: _load(p, t, count, lambda: True)):
            say(line)


def _idle_mb(peer: Peer) -> float:
    """What a session costs that has been greeted and says nothing."""
    context = trusting()
    before = processes.pss_mb(peer.pid)
    sessions = []
    try:
        for _ in range(IDLE):
            tls = context.wrap_socket(socket.create_connection(("127.0.0.1", peer.port), PATIENCE_S))
            sessions.append(tls)
            tls.recv(512)
        return (processes.pss_mb(peer.pid) - before) / IDLE
    finally:
        for tls in sessions:
            tls.close()
