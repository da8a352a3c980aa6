"""POP3: sessions of login, STAT, 10 RETR and QUIT against Debian's Dovecot in its default mode."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import argon2

from bench import peers
from bench.peers import MAIL_UID, Peer
from bench.road import median

MESSAGES: Final = 10
CLIENTS: Final = 4
MESSAGE: Final = b"Subject: x\n\n" + (b"x" * 78 + b"\n") * 50


def fill(maildir: Path, uid: int) -> None:
    for number in range(MESSAGES):
        path = maildir / "new" / f"1700000000.{number}.host,S={len(MESSAGE)},W={len(MESSAGE) + MESSAGE.count(10)}"
        path.write_bytes(MESSAGE)
        os.chown(path, uid, uid)


def session(port: int, user: str, password: str) -> None:
    talk(socket.create_connection(("127.0.0.1", port), 20), user, password)


def talk(connection: socket.socket, user: str, password: str, *, greeted: bool = False) -> None:
    """A session, on a connection that is ours to close; perhaps its greeting has been heard."""
    with connection:

        def say(command: bytes, end: bytes = b"\r\n") -> bytes:
            if command:
                connection.sendall(command + b"\r\n")
            data = b""
            while not data.endswith(end):
                piece = connection.recv(65536)
                if not piece:
                    raise SystemExit(f"bench: {command!r}: the server closed after {data!r}")
                data += piece
                if data.startswith(b"-ERR"):
                    raise SystemExit(f"bench: {command!r}: {data!r}")
            return data

        if not greeted:
            say(b"")
        say(b"USER " + user.encode())
        say(b"PASS " + password.encode())
        stat = say(b"STAT")
        if stat.split()[1] != b"%d" % MESSAGES:
            raise SystemExit(f"bench: {stat!r}")
        for number in range(1, MESSAGES + 1):
            say(b"RETR %d" % number, b"\r\n.\r\n")
        say(b"QUIT")


def _client(port: int, users: list[str], sessions: int) -> None:
    for number in range(sessions):
        session(port, users[number % len(users)], "secret")


def sessions_per_s(peer: Peer, users: list[list[str]], sessions: int) -> tuple[float, float]:
    """CLIENTS clients, each with mailboxes of its own: sessions a second, and CPU ms a session."""
    cpu_s = peer.cpu_s()
    began_s = time.monotonic()
    clients = [multiprocessing.Process(target=_client, args=(peer.port, own, sessions // CLIENTS)) for own in users]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
        if client.exitcode:
            raise SystemExit("bench: a POP3 client failed")
    took_s = time.monotonic() - began_s
    done = sessions // CLIENTS * CLIENTS
    return done / took_s, (peer.cpu_s() - cpu_s) / done * 1000


def _first_login_ms(port: int, user: str) -> float:
    began_s = time.monotonic()
    session(port, user, "secret")
    return (time.monotonic() - began_s) * 1000


def run(rounds: int, sessions: int, say: Callable[[str], None]) -> None:
    users = [[f"user{client}"] for client in range(CLIENTS)]
    firsts = [f"first{number}" for number in range(5)]
    hashed = "{ARGON2ID}" + argon2.PasswordHasher().hash("secret")  # the parameters that qm-passwd uses
    passwords = {name: "{PLAIN}secret" for own in users for name in own} | dict.fromkeys(firsts, hashed)
    with peers.qm("pop3") as (suite, ours), peers.dovecot(passwords) as theirs:
        for name in passwords:
            maildir = suite.add_user(name, "secret")
            fill(maildir, maildir.stat().st_uid)
            fill(theirs.maildir / name / "Maildir", MAIL_UID)
        first = {p.name: median([_first_login_ms(p.port, name) for name in firsts]) for p in (ours, theirs)}
        seen: dict[str, list[tuple[float, float]]] = {"qm": [], "dovecot": []}
        for peer in (ours, theirs):
            sessions_per_s(peer, users, CLIENTS)  # the hash of the first login is not in the figures below
        for _ in range(rounds):
            for peer in (ours, theirs):
                seen[peer.name].append(sessions_per_s(peer, users, sessions))
        ratios = [a[0] / b[0] for a, b in zip(seen["qm"], seen["dovecot"], strict=True)]
        a, b = (median([figures[0] for figures in seen[name]]) for name in ("qm", "dovecot"))
        say(f"| POP3 sessions/s | {a:.0f} | {b:.0f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
        a, b = (median([figures[1] for figures in seen[name]]) for name in ("qm", "dovecot"))
        say(f"| POP3 CPU, ms a session | {a:.2f} | {b:.2f} | {a / b:.2f} |")
        say(f"| first session of a user, argon2id, ms | {first['qm']:.0f} | {first['dovecot']:.0f} | |")
