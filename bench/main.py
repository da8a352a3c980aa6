"""bin/bench: run the benchmarks and print the rows of RESULTS.md.

    bin/bench [road|relay|domains|pop3|sendmail|starttls|submission|pop3tls|turns|memory|backlog]... [--rounds N]
        [--messages N] [--domains N] [--sessions N] [--calls N] [--backlog N]

Needs root and Debian's postfix and dovecot-pop3d.  Nothing is asserted: it prints what it measured.
"""

import argparse
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import qm
from bench import limits, peers, pop3, relay, road, submission, tls, turns

TLS_MESSAGES = 400  # at most; the clients cost more than the servers there


def _heading(words: Sequence[str]) -> str:
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE) or ["unknown"]
    return "\n".join([
        f"## {time.strftime('%Y-%m-%d')}: bin/bench {' '.join(words)}",
        "",
        f"{os.cpu_count()} cores, {models[0]}; Linux {platform.release()}; Python {platform.python_version()};",
        f"qm {qm.__version__}; postfix {peers.version('postconf', '-hd', 'mail_version')};",
        f"dovecot {peers.version('dovecot', '--version')}",
        "",
        "| measured | qm | peer | qm / peer, median (range) |",
        "|---|---|---|---|",
    ])  # fmt: skip


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench")
    under_tls = ["starttls", "submission", "pop3tls"]
    kinds = ["road", "relay", "domains", "pop3", "sendmail", *under_tls, "turns", "memory", "backlog", []]
    parser.add_argument("what", nargs="*", choices=kinds)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=800)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--backlog", type=int, default=100_000)
    chosen = parser.parse_args(list(words))
    if os.geteuid() != 0:
        print("bench: needs root: the peers' programs drop their privileges")
        return 100
    print(_heading(words), flush=True)
    say: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
    everything: dict[str, Callable[[], None]] = {
        "road": lambda: road.run(chosen.rounds, chosen.messages, say),
        "relay": lambda: relay.run(chosen.rounds, chosen.messages, say),
        "domains": lambda: relay.domains(chosen.domains, say),
        "pop3": lambda: pop3.run(chosen.rounds, chosen.sessions, say),
        "sendmail": lambda: submission.run(chosen.rounds, chosen.calls, say),
        "starttls": lambda: tls.starttls(chosen.rounds, min(chosen.messages, TLS_MESSAGES), say),
        "submission": lambda: tls.submission(chosen.rounds, min(chosen.messages, TLS_MESSAGES), say),
        "pop3tls": lambda: tls.pop3tls(chosen.rounds, min(chosen.sessions, TLS_MESSAGES), say),
        "turns": lambda: turns.run(say),
        "memory": lambda: limits.memory(say),
        "backlog": lambda: limits.backlog(chosen.backlog, say),
    }
    for name, measure in everything.items():
        if not chosen.what or name in chosen.what:
            measure()
    return 0
