"""QMAILREMOTE: another program in the place of our remote, run once for each delivery (qmail.md section 11)."""

import os
from collections.abc import Callable, Sequence
from typing import Final

from qm.errors import TEMPORARY
from qm.unix import chain, fds, oversee
from qm.unix.program import Env
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_outcome, unpack_delivery
from qm.wire.remotejob import Report, pack_report, unpack_job
from qm.wire.remotereport import read_in
from qm.wire.smtproute import Destination

LIFE_S: Final = 7200.0  # a program that takes longer is killed
OUTPUT_MAX: Final = 262144  # bytes of its output that are looked at


def entrance(program: bytes, env: Env) -> Callable[[Destination], chain.Work]:
    """For each worker, the function that has *program* do its jobs."""

    def work(record: bytes, descriptors: Sequence[int]) -> bytes:
        delivery = unpack_delivery(unpack_job(record).delivery)
        results = tuple(_deliver(program, env, delivery, descriptors))
        return pack_report(Report(b"", (), (), pack_outcome(Outcome(delivery.number, Health.UNKNOWN, results))))

    return lambda destination: work


def _deliver(program: bytes, env: Env, delivery: Delivery, descriptors: Sequence[int]) -> list[Result]:
    count = len(delivery.recipients)
    addresses = [recipient.address for recipient in delivery.recipients]
    argv = [program, addresses[0].rpartition(b"@")[2], delivery.sender, *addresses]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, env, descriptors[0], writer)
        os.close(writer)
        output = oversee.Output(reader, OUTPUT_MAX)
        code = oversee.wait(pid, output, LIFE_S)
    finally:
        os.close(reader)
    if code is None:
        return [Result(b"Z", b"The program that delivers to other hosts took too long. (#4.4.2)\n", b"4.4.2")] * count
    if code < 0:
        return [Result(b"Z", b"The program that delivers to other hosts crashed. (#4.3.0)\n", b"4.3.0")] * count
    if code == TEMPORARY:
        return [Result(b"Z", b"Unable to run the program that delivers to other hosts. (#4.3.0)\n", b"4.3.0")] * count
    if code != 0:
        return [Result(b"D", b"Unable to run the program that delivers to other hosts. (#5.3.0)\n", b"5.3.0")] * count
    return read_in(output.kept, count)


def _become(argv: Sequence[bytes], env: Env, message: int, writer: int) -> None:
    """In the child; never returns."""
    try:
        os.setpgid(0, 0)
        os.lseek(message, 0, os.SEEK_SET)
        fds.place({0: message, 1: writer, 2: writer})
        chain.execute(argv, env)
    finally:
        os._exit(TEMPORARY)
