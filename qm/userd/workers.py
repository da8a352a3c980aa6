"""Who looks at a password: workers, since it takes 50 ms in which others get answers.

C code sees a stranger's bytes only as a user who owns nothing.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.unix import privs
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire.record import number, pack, unpack
from qm.wire.scram import ITERATIONS_MAX, SALT_MAX
from qm.wire.storedsecret import APPS_MAX

IDLE_S: Final = 10.0  # a worker that has nothing to do leaves; malloc keeps the 19 MiB of its last check
YES: Final = b"yes"
NO: Final = b"no"

Report = Callable[[bytes | None], None]


class _Job(NamedTuple):
    record: bytes
    report: Report


class Workers:
    """A pool, and the jobs that wait for it; each client of userd has at most one."""

    def __init__(self, loop: Loop, trade: Trade, enter: Callable[[None], Work], most: int) -> None:
        self._waiting: deque[_Job] = deque()
        self._pool: Pool[None] = Pool(loop, trade, enter, Limits(most, most, idle_s=IDLE_S))

    def give(self, record: bytes, report: Report) -> None:
        """Have *record* worked on in its turn; *report* gets the result, None if it failed, later or at once."""
        self._waiting.append(_Job(record, report))
        self._start()

    def _start(self) -> None:
        while self._waiting and self._pool.room(None):
            job = self._waiting.popleft()
            try:
                self._pool.give(None, job.record, (), partial(self._done, job))
            except OSError as error:
                job.report(f"cannot start a worker: {error.strerror}".encode())

    def _done(self, job: _Job, report: bytes | None) -> None:
        job.report(report)
        self._start()

    def close(self) -> None:
        """End the workers; jobs that are not done are not reported."""
        self._waiting.clear()
        self._pool.close()


def check_record(hash_: bytes, decoy: bytes, salt: bytes, iterations: int, keys: list[bytes], secret: bytes) -> bytes:
    """The job of checking *secret* against what is stored (qm.disk.hashes.Stored)."""
    return pack(hash_, decoy, salt.hex().encode(), b"%d" % iterations, b"".join(keys).hex().encode(), secret)


def enter_hashing(key: None) -> Work:
    """In the fresh worker: import what checks passwords, then be a user who owns nothing."""
    from qm.disk import hashes  # 4 MB, which userd itself does without
    from qm.unix import accounts

    with suppress(Temporary):  # then the checks that need it say so
        accounts.libcrypt()
    privs.become(privs.role("qmailp"))

    def work(record: bytes, descriptors: object) -> bytes:
        hash_, decoy, salt, iterations, keys, secret = unpack(record, 6)
        joined = bytes.fromhex(keys.decode("ascii"))[: APPS_MAX * 32]
        stored = hashes.Stored(
            hash_,
            decoy,
            number(iterations, ITERATIONS_MAX),
            bytes.fromhex(salt.decode("ascii"))[:SALT_MAX],
            tuple(joined[start : start + 32] for start in range(0, len(joined), 32)),
        )
        try:
            return YES if hashes.check_any(stored, secret) else NO
        except Temporary as error:
            return str(error).encode("utf-8", "replace")

    return work
