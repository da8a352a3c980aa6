"""Mail for other hosts: SMTP in, SMTP out to smtp-sink, until the queue is empty.

- relay: 4 kB messages to one host, and one message to 1000 recipients there, against Postfix with the same relay.
- domains: ten messages to each of 1000 domains, 5 of 100 of them dead (half refuse connections, half are silent), by a
  scripted DNS.  Postfix asks the machine's own resolver, so this is qm alone.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import peers
from bench.pairs import Figures, compare
from bench.peers import Peer
from bench.road import SIZE_BYTES
from qm.unix.queueclient import QueueClient
from qm.wire.envelope import Envelope, Recipient
from tests.harness.peers import DnsAnswerer, SmtpSink
from tests.harness.suite import Suite

HOST: Final = "dest.example"
RECIPIENTS: Final = 1000
EACH: Final = 10  # messages to a domain
DEAD: Final = 20  # one domain of so many is dead
CONCURRENCY: Final = 100  # of `domains`; Postfix's default_process_limit
SINK, REFUSES, SILENT = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def _is_empty(peer: Peer) -> bool:
    return not any(files for folder in peer.queue for _, _, files in os.walk(folder))


def _send(peer: Peer, *options: str) -> None:
    address = f"127.0.0.1:{peer.port}"
    subprocess.run(["smtp-source", *options, "-f", "bob@elsewhere.example", "-t", f"u@{HOST}", address], check=True)  # noqa: S607


def measure(peer: Peer, count: int, *options: str) -> Figures:
    """smtp-source sends with *options*; the clock stops when the queue is empty again."""
    cpu_s = peer.cpu_s()
    began_s = time.monotonic()
    _send(peer, *options)
    peers.wait_until(lambda: _is_empty(peer), 300.0)
    took_s = time.monotonic() - began_s
    return Figures(count / took_s, (peer.cpu_s() - cpu_s) / count * 1000)


def run(rounds: int, messages: int, say: Callable[[str], None]) -> None:
    with SmtpSink() as sink:
        routes = {"smtproutes": f":127.0.0.1:{sink.port}\n"}
        relayhost = f"relayhost = [127.0.0.1]:{sink.port}\n"
        with peers.qm(controls=routes, env={"RELAYCLIENT": ""}) as (_, ours), peers.postfix(relayhost) as theirs:
            for peer in (ours, theirs):
                measure(peer, 200, "-s", "10", "-m", "200", "-l", str(SIZE_BYTES))  # warm
            for at_once in (1, 10, 20):
                options = ("-s", str(at_once), "-m", str(messages), "-l", str(SIZE_BYTES))
                label = f"relay, {at_once} connections: messages"
                for line in compare(ours, theirs, rounds, label, lambda p, o=options: measure(p, messages, *o)):
                    say(line)
            options = ("-s", "1", "-m", "1", "-r", str(RECIPIENTS), "-l", str(SIZE_BYTES))
            label = f"relay, 1 message to {RECIPIENTS} of one domain: recipients"
            for line in compare(ours, theirs, rounds, label, lambda p: measure(p, RECIPIENTS, *options)):
                say(line)


# Many domains


@contextmanager
def _silence(port: int) -> Iterator[None]:
    """Nobody answers on *port* of SILENT: the kernel's queue of connections is full."""
    with socket.socket() as listener:
        listener.bind((SILENT, port))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((SILENT, port))
        try:
            yield
        finally:
            for filler in fillers:
                filler.close()


def _is_dead(number: int) -> bool:
    return number % DEAD == DEAD - 1


def _records(count: int) -> dict[str, dict[str, list[str]]]:
    """DNS for d0.test and so on: an exchanger each, with an address."""
    records = {}
    for number in range(count):
        address = SINK
        if _is_dead(number):
            address = REFUSES if number // DEAD % 2 else SILENT
        records[f"d{number}.test MX"] = {"answer": [f"10 mx.d{number}.test."]}
        records[f"mx.d{number}.test A"] = {"answer": [address]}
    return records


def _fill(suite: Suite, count: int) -> None:
    """EACH messages to each domain, in rounds."""
    body = b"Subject: relay\n\n" + (b"x" * 78 + b"\n") * (SIZE_BYTES // 79)
    with QueueClient(os.fsencode(suite.home / "queue" / "socket")) as client:
        for number in range(count * EACH):
            submission = client.begin()
            submission.write(body)
            submission.commit(Envelope(b"", (Recipient(b"u%d@d%d.test" % (number, number % count)),)))


def domains(count: int, say: Callable[[str], None]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        SmtpSink() as sink,
        _silence(sink.port),
        DnsAnswerer(Path(folder), _records(count)) as dns,
    ):
        controls = {
            "concurrencyremote": f"{CONCURRENCY}\n",
            "dnsservers": f"127.0.0.1:{dns.port}\n",
            "notipme": f"{SINK}\n{REFUSES}\n{SILENT}\n",
            "smtproutes": f"::{sink.port}\n",
        }
        with peers.qm(controls=controls) as (suite, peer):
            for line in _drain(suite, peer, count):
                say(line)
        say(f"| DNS queries for {count} domains | {len(dns.asked())} | | |")


def _drain(suite: Suite, peer: Peer, count: int) -> Iterator[str]:
    """Rows about how long it takes, from the first message on."""
    dead = EACH * sum(map(_is_dead, range(count)))
    cpu_s = peer.cpu_s()
    began_s = time.monotonic()
    _fill(suite, count)
    filled_s = time.monotonic() - began_s
    peers.wait_until(lambda: sum(len(os.listdir(path)) for path in peer.queue) <= dead, 600.0)
    drained_s = time.monotonic() - began_s
    cpu_ms = (peer.cpu_s() - cpu_s) / (count * EACH) * 1000
    what = f"{count * EACH} messages to {count} domains, 1 of {DEAD} dead"
    yield f"| {what}: s until all were taken in / the living had theirs | {filled_s:.1f} / {drained_s:.1f} | | |"
    yield f"| {what}: CPU, ms a message | {cpu_ms:.2f} | | |"
    peers.wait_until(lambda: len(os.listdir(suite.home / "queue/state")) >= dead, 600.0)
    yield f"| {what}: s until all others were deferred | {time.monotonic() - began_s:.1f} | | |"
