"""What the suite does at its limits: memory of many sessions, a backlog of deferred mail."""

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from bench import peers, processes, road
from bench.peers import Peer
from qm.unix.queueclient import QueueClient
from qm.wire.envelope import Envelope, Recipient
from tests.harness.suite import DOMAIN, Suite

SESSIONS: Final = 100


def _open_session(port: int) -> socket.socket:
    """A client in the middle of a message."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(20)
    connection.sendall(
        b"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\n" + f"RCPT TO:<ann@{DOMAIN}>\r\nDATA\r\n".encode()
    )
    seen = b""
    while b"\r\n354" not in seen:
        piece = connection.recv(4096)
        if not piece:
            raise SystemExit(f"bench: session refused after {seen!r}")
        seen += piece
    connection.sendall(b"Subject: x\r\n\r\n" + b"x" * 500 + b"\r\n")
    return connection


def memory(say: Callable[[str], None]) -> None:
    with peers.qm() as (suite, peer):
        suite.wait_until_idle()
        idle = processes.pss_mb(peer.pid)
        sessions = [_open_session(peer.port) for _ in range(SESSIONS)]
        busy = processes.pss_mb(peer.pid)
        for session in sessions:
            session.sendall(b".\r\nQUIT\r\n")
        for session in sessions:
            while session.recv(4096):
                pass
            session.close()
        suite.wait_for_mail(SESSIONS)
        say(f"| idle suite, PSS MB, {len(processes.tree(peer.pid))} processes at the end | {idle:.1f} | | |")
        say(f"| each of {SESSIONS} SMTP sessions in DATA, PSS MB | {(busy - idle) / SESSIONS:.2f} | | |")


def _send_pid(suite: Suite) -> int:
    """send holds the trigger; the one process whose descriptors name it for reading."""
    for pid in suite.pids():
        try:
            targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(t.endswith("/queue/cur") for t in targets) and any(t.endswith("/queue/trigger") for t in targets):
            return pid
    raise SystemExit("bench: no send")


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        private = [line for line in file if line.startswith(("Private_Dirty:", "Private_Clean:"))]
    return sum(int(line.split()[1]) * 1024 for line in private)


def backlog(messages: int, say: Callable[[str], None]) -> None:
    """Defer *messages*: their mailbox does not exist, as after a disk that is not mounted."""
    with peers.qm() as (suite, peer):
        empty = [road.measure(peer, 10, 1000).messages_per_s for _ in range(3)]
        suite.dot_qmail("ann", "./NoMaildir/\n", "-later")
        before = _resident(_send_pid(suite))
        _defer(suite, messages)
        held = _resident(_send_pid(suite)) - before
        say(f"| send, bytes a deferred message ({messages} messages) | {held / messages:.0f} | | |")
        full = [_accept(suite, peer, 1000) for _ in range(3)]
        before_s, behind_s = road.median(empty), road.median(full)
        say(f"| messages/s with an empty queue | {before_s:.0f} | | |")
        say(f"| messages/s behind {messages} deferred | {behind_s:.0f} | | {behind_s / before_s:.2f} of that |")
        count = len(suite.mail())
        suite.kill()
        began_s = time.monotonic()
        suite.start()
        suite.send(f"ann@{DOMAIN}", b"Subject: after\r\n\r\nx\r\n")
        suite.wait_for_mail(count + 1, limit_s=60.0)
        took_s = time.monotonic() - began_s
        say(f"| after a kill, s until new mail is delivered behind {messages} deferred | {took_s:.1f} | | |")
        suite.signal(signal.SIGTERM)


def _accept(suite: Suite, peer: Peer, messages: int) -> float:
    return road.measure(peer, 10, messages).messages_per_s


def _defer(suite: Suite, messages: int) -> None:
    address = f"ann-later@{DOMAIN}".encode()
    with QueueClient(os.fsencode(suite.home / "queue" / "socket")) as client:
        for _ in range(messages):
            submission = client.begin()
            submission.write(b"Subject: later\n\nx\n")
            submission.commit(Envelope(b"", (Recipient(address),)))
    folder = os.fsencode(suite.home / "queue" / "state")
    peers.wait_until(lambda: len(os.listdir(folder)) >= messages, 1800.0)
