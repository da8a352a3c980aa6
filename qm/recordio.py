"""recordio: run a program and show in the log what it reads and writes.

Usage:   recordio program [arg ...]
Reads:   fd 0 (in a child, which passes it on)
Env:     QMCOLD
Writes:  fd 1 (likewise), fd 2 (the record)
As:      whoever runs it; for root the child is qmaild, or nobody
Exits:   what program exits with; 100 usage; 111 no process for the child
See:     recordio(1), qmail.md 21.6
"""

from typing import Final

from qm.unix import log, relay
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.lineends import Change

PACKET_MAX: Final = 256  # bytes, as ucspi-tcp: a line of the record is written at once


def lines(pid: int, way: bytes, packet: bytes) -> list[bytes]:
    """*packet* as lines of the record: a blank ends what ended in a newline, a plus what did not."""
    start = b"%d %b " % (pid, way)
    if not packet:
        return [start + b"[EOF]"]
    *whole, rest = packet.split(b"\n")
    found = [start + log.clean(line) + b" " for line in whole]
    return [*found, start + log.clean(rest) + b"+"] if rest else found


def _recorder(pid: int, way: bytes) -> Change:
    def record(packet: bytes) -> bytes:
        log.write_lines(lines(pid, way, packet))
        return packet

    return record


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: recordio program [arg ...]")
    return relay.beside(argv, env, lambda pid: (_recorder(pid, b"<"), _recorder(pid, b">")), PACKET_MAX)
