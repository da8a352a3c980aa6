"""lspawn: find the user of each local delivery and give it to a worker that runs as that user (qmail-lspawn).

Usage:   qm-lspawn defaultdelivery
Reads:   fd 0 (records from send, with the message's descriptor), users/cdb, the accounts
Writes:  fd 0 (reports), fd 2 (log)
As:      root, or the owner of a private system; parses send's records and nothing else
Exits:   0 when send has gone and the deliveries have ended; 100 usage; 111 trouble
See:     qm-lspawn(8), qmail.md sections 9, 10; docs/INTERNALS.md 1.6

A worker serves one (uid, gid, home).  Whatever goes wrong here is a temporary failure of that delivery.
"""

import functools
import os
import socket
from typing import Final, NamedTuple

from qm import errors
from qm.disk import users
from qm.unix import chain, fds, log, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_outcome, unpack_delivery
from qm.wire.record import Malformed, pack

NAME: Final = b"qm-lspawn"
TRADE: Final = Trade(b"qm-local", b"delivers")
LIMITS: Final = Limits(workers=120, per_key=120, jobs_per_worker=500, idle_s=60.0)  # qmail's conf-spawn


class _As(NamedTuple):
    """Whom a worker runs as, and where."""

    uid: int
    gid: int
    home: bytes


def _become(key: _As) -> bytes:
    """Be the user, in the user's home; a report if the home cannot be entered.

    The home comes first: it may lie below a directory that the user cannot search.
    """
    try:
        os.chdir(key.home)
    except OSError as error:
        return b"ZUnable to enter the home directory: %b. (#4.3.0)\n" % os.fsencode(error.strerror or "unknown error")
    privs.become(privs.Ids(key.uid, key.gid))
    return b""


def _enter(work: Work, key: _As) -> Work:
    """In the fresh worker: what does the user's jobs."""
    trouble = _become(key)
    if not trouble:
        return work

    def work_when_home_is_there(record: bytes, descriptors: list[int]) -> bytes:
        nonlocal trouble
        trouble = trouble and _become(key)  # its disk may have been mounted
        return trouble or work(record, descriptors)

    return work_when_home_is_there


class _Lspawn:
    def __init__(self, channel: socket.socket, default_delivery: bytes) -> None:
        self._channel = channel
        self._default_delivery = default_delivery
        self._loop = Loop()
        self._directory = users.Directory()
        enter = functools.partial(_enter, chain.worker(b"qm-local"))
        self._pool: Pool[_As] = Pool(self._loop, TRADE, enter, LIMITS)
        self._gone = False

    def run(self) -> None:
        self._loop.watch(self._channel.fileno(), self._readable)
        self._loop.run()
        self._pool.close()

    def _readable(self) -> None:
        try:
            record, descriptors = fds.recv_record(self._channel)
        except ConnectionResetError:
            record, descriptors = b"", []  # it has died with reports unread
        except (OSError, Malformed) as error:
            log.alert(NAME, f"send's channel: {error}")
            record, descriptors = b"", []
        if not record:
            self._end()
            return
        try:
            self._deliver(unpack_delivery(record), descriptors)
        except Malformed as error:
            log.alert(NAME, f"send gave a bad record: {error}")
            self._end()
        finally:
            fds.close_all(descriptors)

    def _end(self) -> None:
        """send has gone: finish what is being done, take no more."""
        self._loop.unwatch(self._channel.fileno())
        self._gone = True
        if not self._pool.busy:
            self._loop.stop()

    def _deliver(self, delivery: Delivery, descriptors: list[int]) -> None:
        if len(descriptors) != 1 or len(delivery.recipients) != 1:
            raise Malformed("a local delivery has one message and one recipient")
        index, address, *_ = delivery.recipients[0]
        local, at, domain = address.rpartition(b"@")
        if not at:
            self._report(delivery, b"DThis address has no domain. (#5.1.3)\n")
            return
        if not local:
            self._report(delivery, b"K")  # qmail.md section 10: mail to nobody succeeds
            return
        try:
            user = self._directory.find(local)
        except errors.QmError as error:
            log.warning(NAME, str(error))
            self._report(delivery, b"ZUnable to look up the user. (#%b)\n" % error.status.encode())
            return
        job = pack(
            user.user, user.home, local, user.dash, user.ext, domain, delivery.sender, self._default_delivery,
            delivery.id, b"%d" % index, delivery.flags,
        )  # fmt: skip
        self._start(delivery, _As(user.uid, user.gid, user.home), job, descriptors)

    def _start(self, delivery: Delivery, key: _As, job: bytes, descriptors: list[int]) -> None:
        if not self._pool.room(key):
            self._report(delivery, b"ZToo many local deliveries at once. (#4.3.2)\n")
            return
        try:
            self._pool.give(key, job, descriptors, lambda report: self._ended(delivery, report))
        except OSError as error:
            log.alert(NAME, f"cannot start a delivery: {error.strerror}")
            self._report(delivery, b"ZUnable to start a delivery. (#4.3.0)\n")

    def _ended(self, delivery: Delivery, report: bytes | None) -> None:
        self._report(delivery, report if report else b"ZThe delivery was cut short. (#4.3.0)\n")
        if self._gone and not self._pool.busy:
            self._loop.stop()

    def _report(self, delivery: Delivery, report: bytes) -> None:
        letter, text = report[:1], report[1:].replace(b"\0", b"?")
        if letter not in (b"K", b"Z", b"D"):
            letter, text = b"Z", b"The delivery gave a report that makes no sense. (#4.3.0)\n"
        outcome = Outcome(delivery.number, Health.UNKNOWN, (Result(letter, text, mta=b""),))
        try:
            fds.send_record(self._channel, pack_outcome(outcome))
        except OSError as error:
            if not self._gone:
                log.alert(NAME, f"cannot report to send: {error.strerror}")


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: qm-lspawn defaultdelivery")
    os.umask(0o077)
    channel = socket.socket(fileno=os.dup(0))
    _Lspawn(channel, argv[1]).run()
    return errors.OK
