"""The main road: SMTP in, until every message is in the Maildir."""

import multiprocessing
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from bench import peers, processes
from bench.peers import Peer
from tests.harness.suite import DOMAIN

SIZE_BYTES = 4000
_TOKEN = re.compile(rb"^X-Token: (\S+)", re.MULTILINE)


class Figures(NamedTuple):
    messages_per_s: float
    cpu_ms: float  # per message, of the whole tree
    pss_mb: float  # right after the load


def measure(peer: Peer, connections: int, messages: int) -> Figures:
    """smtp-source sends *messages*, a connection each, *connections* at once; the clock stops when all have been
    delivered.
    """
    before = peer.delivered()  # nothing is removed: ext4 is slow to use an inode again that was deleted just before
    cpu_s = peer.cpu_s()
    began_s = time.monotonic()
    subprocess.run(
        [  # noqa: S607
            "smtp-source", "-s", str(connections), "-m", str(messages), "-l", str(SIZE_BYTES),
            "-f", "bob@elsewhere.example", "-t", f"ann@{DOMAIN}", f"127.0.0.1:{peer.port}",
        ],
        check=True,
    )  # fmt: skip
    peers.wait_until(lambda: peer.delivered() >= before + messages, 120.0)
    took_s = time.monotonic() - began_s
    used_s = peer.cpu_s() - cpu_s
    return Figures(messages / took_s, used_s / messages * 1000, processes.pss_mb(peer.pid))


Accepted = dict[str, int]  # when, in ns, by token


def _client(port: int, name: str, messages: int, pause_s: float, results: "multiprocessing.Queue[Accepted]") -> None:
    """Send *messages* in one session; when each was accepted, in ns, by token."""
    accepted = {}
    body = b"x" * 78 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        replies = connection.makefile("rb")

        def reply() -> None:
            while replies.readline()[3:4] == b"-":
                pass

        reply()
        connection.sendall(b"EHLO client.example\r\n")
        reply()
        for number in range(messages):
            token = f"{name}.{number}"
            envelope = f"MAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<ann@{DOMAIN}>\r\nDATA\r\n"
            connection.sendall(envelope.encode())
            for _ in range(3):
                reply()
            connection.sendall(b"X-Token: " + token.encode() + b"\r\n\r\n" + body * 48 + b".\r\n")
            reply()
            accepted[token] = time.time_ns()
            time.sleep(pause_s)
    results.put(accepted)


def latency_ms(peer: Peer, connections: int, messages: int, pause_s: float) -> tuple[float, float]:
    """p50 and p99 of the time from 250 to the message's name in new/, by the file system's clock (its grain is some
    ms).
    """
    before = set(os.listdir(peer.maildir / "new"))
    results: multiprocessing.Queue[dict[str, int]] = multiprocessing.Queue()
    clients = [
        multiprocessing.Process(target=_client, args=(peer.port, f"c{n}", messages // connections, pause_s, results))
        for n in range(connections)
    ]
    for client in clients:
        client.start()
    accepted: dict[str, int] = {}
    for _ in clients:
        accepted |= results.get(timeout=120)
    for client in clients:
        client.join()
    peers.wait_until(lambda: peer.delivered() >= len(before) + len(accepted), 120.0)
    waits = []
    for name in set(os.listdir(peer.maildir / "new")) - before:
        path = peer.maildir / "new" / name
        token = _TOKEN.search(path.read_bytes())
        assert token is not None
        waits.append(max(0.0, (path.stat().st_ctime_ns - accepted[token[1].decode()]) / 1e6))
    waits.sort()
    return waits[len(waits) // 2], waits[int(len(waits) * 0.99)]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def run(rounds: int, messages: int, say: Callable[[str], None]) -> None:
    """Alternate the two, *rounds* times each; medians."""
    with peers.qm() as (_, ours), peers.postfix() as theirs:
        say(f"| idle PSS, MB | {processes.pss_mb(ours.pid):.1f} | {processes.pss_mb(theirs.pid):.1f} | |")
        for peer in (ours, theirs):
            measure(peer, 10, 200)  # warm
        for connections in (1, 10, 20):
            seen: dict[str, list[Figures]] = {"qm": [], "postfix": []}
            for _ in range(rounds):
                for peer in (ours, theirs):
                    seen[peer.name].append(measure(peer, connections, messages))
            ratios = [a.messages_per_s / b.messages_per_s for a, b in zip(seen["qm"], seen["postfix"], strict=True)]
            for label, index in (("messages/s", 0), ("CPU, ms a message", 1), ("PSS after load, MB", 2)):
                a, b = (median([figures[index] for figures in seen[name]]) for name in ("qm", "postfix"))
                ratio = f"{a / b:.2f}" if index else f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                say(f"| {connections} connections: {label} | {a:.2f} | {b:.2f} | {ratio} |")
        loads = (("10 connections, no pause", 10, 0.0), ("1 connection, 10 ms pause", 1, 0.01))
        for label, connections, pause_s in loads:
            count = min(messages, 1000)
            (a50, a99), (b50, b99) = (latency_ms(peer, connections, count, pause_s) for peer in (ours, theirs))
            say(f"| 250 to Maildir, p50 / p99 ms: {label} | {a50:.1f} / {a99:.1f} | {b50:.1f} / {b99:.1f} | |")
