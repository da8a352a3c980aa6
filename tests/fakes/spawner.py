"""lspawn or rspawn for a send under test: answers each delivery at once, by the first letters of its recipients.

Usage: spawner.py, its channel on descriptor 0.  dead: its host cannot be reached; later: deferred; no: refused; else
delivered.
"""

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from qm.unix import fds
from qm.wire.delivery import Health, Outcome, Result, pack_outcome, unpack_delivery

ANSWERS = {
    b"dead": Result(b"Z", b"I wasn't able to establish an SMTP connection (1.2.3.4: timed out). (#4.4.1)\n", b"4.4.1"),
    b"late": Result(b"Z", b"Connected to 192.0.2.1 but it is busy. (#4.3.2)\n", b"4.3.2", b"mx.example", b"450 later"),
    b"no": Result(b"D", b"192.0.2.1 does not like recipient. (#5.1.1)\n", b"5.1.1", b"mx.example", b"550 unknown"),
    b"": Result(b"K", b"192.0.2.1 accepted message.\nRemote host said: 250 ok\n", b"2.0.0", b"mx.example", b"250 ok"),
}


def main() -> None:
    channel = socket.socket(fileno=0)
    while True:
        record, descriptors = fds.recv_record(channel)
        fds.close_all(descriptors)
        if not record:
            return
        delivery = unpack_delivery(record)
        results = tuple(
            next(ANSWERS[start] for start in ANSWERS if recipient.address.startswith(start))
            for recipient in delivery.recipients
        )
        health = Health.DEAD if results[0] is ANSWERS[b"dead"] else Health.UP
        fds.send_record(channel, pack_outcome(Outcome(delivery.number, health, results)))


if __name__ == "__main__":
    main()
