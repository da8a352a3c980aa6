"""The spawner's promises, with real worker processes."""

import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.unix import fds, spawner
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade
from qm.unix.worker import Work
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # pytest-xdist has threads

LIMIT_S = 15.0


def _serve_jobs(record: bytes, descriptors: list[int]) -> bytes:
    """Do what the record asks for."""
    word, _, argument = record.partition(b" ")
    if word == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == b"raise":
        raise RuntimeError("asked to")
    if word == b"exec":
        os.execv("/bin/sh", ["sh", "-c", os.fsdecode(argument)])
    if word == b"read":
        return os.read(descriptors[0], 100)
    if word == b"take":
        os.close(descriptors.pop())
        return b"taken"
    if word == b"fds":
        return b" ".join(sorted(os.listdir(b"/proc/self/fd"), key=int))
    if word == b"standard":
        return b" ".join(os.readlink(b"/proc/self/fd/%d" % fd) for fd in (0, 1))
    if word == b"ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(descriptors[0], b"r")
        signal.pause()
    return b"%d %b" % (os.getpid(), record)


class Rig:
    """A pool, a loop, and what came of the jobs."""

    def __init__(
        self, limits: Limits, enter: Callable[[str], Work], rekey: Callable[[str], bool], keep: tuple[int, ...]
    ) -> None:
        self.loop = Loop()
        self.exits: list[tuple[int, int]] = []
        self.results: list[bytes | None] = []
        self.pool: Pool[str] = Pool(
            self.loop,
            Trade(b"test", b"works"),
            enter,
            limits,
            on_exit=lambda *exit: self.exits.append(exit),
            rekey=rekey,
            keep=lambda: keep,
        )

    def give(self, record: bytes, key: str = "", descriptors: tuple[int, ...] = ()) -> int:
        return self.pool.give(key, record, descriptors, self.results.append)

    def until(self, predicate: Callable[[], object]) -> None:
        """Run the loop until *predicate* is true."""
        late = self.loop.after(LIMIT_S, lambda: pytest.fail("the pool does not get there"))
        self.loop.before_wait = [lambda: self.loop.stop() if predicate() else None]
        self.loop.run()
        self.loop.before_wait = []
        late.cancel()

    def do(self, record: bytes, key: str = "", descriptors: tuple[int, ...] = ()) -> bytes | None:
        """One job from beginning to end."""
        count = len(self.results)
        self.give(record, key, descriptors)
        self.until(lambda: len(self.results) > count)
        return self.results[-1]


def _enter(key: str) -> Work:
    return _serve_jobs


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []
    before = signal.getsignal(signal.SIGCHLD)

    def make(
        enter: Callable[[str], Work] = _enter,
        *,
        rekey: Callable[[str], bool] = lambda key: False,
        keep: tuple[int, ...] = (),
        **limits: float,
    ) -> Rig:
        rig = Rig(Limits()._replace(**limits), enter, rekey, keep)
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.pool.close()
        rig.loop.forget()
    signal.signal(signal.SIGCHLD, before)


def _pid(result: bytes | None) -> int:
    assert result is not None
    return int(result.split()[0])


def test_a_worker_does_one_job_after_another(make_rig: MakeRig) -> None:
    """An idle worker is taken before a new one is forked."""
    rig = make_rig()
    assert _pid(rig.do(b"a")) == _pid(rig.do(b"b")) == _pid(rig.do(b"c"))
    assert len(rig.pool) == 1


def test_jobs_at_the_same_time_have_workers_of_their_own(make_rig: MakeRig) -> None:
    """A busy worker gets no second job."""
    rig = make_rig()
    pids = {rig.give(b"a"), rig.give(b"b"), rig.give(b"c")}
    assert len(pids) == 3
    assert rig.pool.busy == 3
    rig.until(lambda: len(rig.results) == 3)
    assert rig.pool.busy == 0
    assert {_pid(result) for result in rig.results} == pids == rig.pool.pids


def test_the_latest_idle_worker_is_taken(make_rig: MakeRig) -> None:
    """The worker whose memory is still in the caches serves next, so that the others can retire."""
    rig = make_rig()
    rig.give(b"a"), rig.give(b"b")
    rig.until(lambda: len(rig.results) == 2)
    assert rig.give(b"c") == _pid(rig.results[1])


def test_a_worker_has_one_key_for_life(make_rig: MakeRig) -> None:
    """No worker serves a second key; enter learns the key."""
    seen: list[bytes] = []
    rig = make_rig(lambda key: lambda record, _: b"%d %b" % (os.getpid(), key.encode()))
    for key in ("u1", "u2", "u1", "u2"):
        result = rig.do(b"x", key)
        assert result is not None
        seen.append(result)
    assert seen[0] == seen[2] and seen[1] == seen[3] and seen[0] != seen[1]
    assert [result.split()[1] for result in seen] == [b"u1", b"u2", b"u1", b"u2"]


def test_a_worker_is_replaced_after_its_jobs(make_rig: MakeRig) -> None:
    """After jobs_per_worker jobs a worker leaves with exit code 0 and the next job has a fresh one."""
    rig = make_rig(jobs_per_worker=3)
    pids = [_pid(rig.do(b"x")) for _ in range(7)]
    assert sorted(Counter(pids).values()) == [1, 3, 3]
    rig.until(lambda: len(rig.exits) == 2)
    assert rig.exits == [(pids[0], 0), (pids[3], 0)]


def test_an_idle_worker_is_retired(make_rig: MakeRig) -> None:
    """A worker that has been idle for idle_s leaves."""
    rig = make_rig(idle_s=0.05)
    pid = _pid(rig.do(b"x"))
    rig.until(lambda: rig.exits)
    assert rig.exits == [(pid, 0)]
    assert len(rig.pool) == 0


def test_room_ends_at_the_limit_of_workers(make_rig: MakeRig) -> None:
    """With all workers busy there is no room, for any key; one job's end makes some again."""
    rig = make_rig(workers=2, per_key=2)
    reader, writer = os.pipe()
    assert rig.pool.room("a")
    rig.give(b"read", "a", (reader,))
    assert rig.pool.room("b")
    rig.give(b"read", "a", (reader,))
    assert not rig.pool.room("a")
    assert not rig.pool.room("b")
    os.write(writer, b"x")
    rig.until(lambda: rig.results == [b"x"])
    assert rig.pool.room("a")
    assert rig.pool.room("b")  # the idle worker of a would make way
    os.write(writer, b"y")
    rig.until(lambda: rig.results == [b"x", b"y"])
    fds.close_all((reader, writer))


def test_room_ends_at_the_limit_per_key(make_rig: MakeRig) -> None:
    """One key cannot have more than its share, idle workers of others notwithstanding."""
    rig = make_rig(workers=10, per_key=1)
    reader, writer = os.pipe()
    rig.give(b"read", "a", (reader,))
    assert not rig.pool.room("a")
    assert rig.pool.room("b")
    os.write(writer, b"x")
    rig.until(lambda: rig.results)
    assert rig.pool.room("a")
    fds.close_all((reader, writer))


def test_an_idle_worker_makes_way_for_another_key(make_rig: MakeRig) -> None:
    """At the limit the worker that has been idle longest is retired for a job of another key."""
    rig = make_rig(workers=2, per_key=2)
    oldest = _pid(rig.do(b"x", "a"))
    younger = _pid(rig.do(b"x", "b"))
    newest = _pid(rig.do(b"x", "c"))
    assert rig.pool.pids == {younger, newest}
    rig.until(lambda: rig.exits)
    assert rig.exits == [(oldest, 0)]


def test_where_keys_may_change_nobody_is_forked_at_the_limit(make_rig: MakeRig) -> None:
    """With rekey, the worker that has been idle longest serves the next key; below the limit each key has its own."""
    rig = make_rig(rekey=lambda key: True, workers=2, per_key=2)
    first, second = _pid(rig.do(b"x", "a")), _pid(rig.do(b"x", "b"))
    assert first != second
    assert [_pid(rig.do(b"x", key)) for key in ("c", "d", "c", "e", "d")] == [first, second, first, second, first]
    assert not rig.exits
    assert set(rig.pool._per_key) == {"e", "d"}


def test_a_worker_of_a_key_that_has_secrets_serves_no_other(make_rig: MakeRig) -> None:
    """With rekey, a worker whose key forbids it is retired at the limit instead."""
    rig = make_rig(rekey=lambda key: key != "secret", workers=1, per_key=1)
    first, second = _pid(rig.do(b"x", "a")), _pid(rig.do(b"x", "secret"))
    assert first == second
    assert _pid(rig.do(b"x", "a")) != second
    rig.until(lambda: rig.exits)
    assert rig.exits == [(second, 0)]


def test_a_worker_is_told_of_its_end(make_rig: MakeRig) -> None:
    """Work with a close is closed when the spawner lets the worker go."""
    reader, writer = os.pipe()

    class Work:
        def __call__(self, record: bytes, descriptors: list[int]) -> bytes:
            self.descriptor = descriptors.pop()
            return b""

        def close(self) -> None:
            os.write(self.descriptor, b"goodbye")

    rig = make_rig(lambda key: Work())
    rig.do(b"x", descriptors=(writer,))
    os.close(writer)
    rig.pool.retire_all()
    assert os.read(reader, 100) == b"goodbye"
    os.close(reader)


def test_a_worker_that_is_killed_in_a_job_fails_only_that_job(make_rig: MakeRig) -> None:
    """The job of a worker that dies is None, its exit status is told before, and others go on."""
    rig = make_rig()
    reader, writer = os.pipe()
    other = rig.give(b"read", "", (reader,))
    victim = rig.give(b"die")
    rig.until(lambda: rig.results)
    assert rig.results == [None]
    assert rig.exits == [(victim, signal.SIGKILL)]
    assert rig.pool.pids == {other}
    os.write(writer, b"still here")
    rig.until(lambda: len(rig.results) == 2)
    assert rig.results[1] == b"still here"
    fds.close_all((reader, writer))


def test_an_exception_fails_the_job_and_ends_the_worker(make_rig: MakeRig, capfd: pytest.CaptureFixture[str]) -> None:
    """After an unforeseen exception the job is None, the log says where, and the worker is used no more."""
    rig = make_rig()
    worker = rig.give(b"raise")
    rig.until(lambda: rig.results)
    assert rig.results == [None]
    assert rig.exits == [(worker, 111 << 8)]
    assert "alert: bug, please report: RuntimeError: asked to at test_spawner.py" in capfd.readouterr().err
    assert _pid(rig.do(b"x")) != worker


def test_a_worker_that_cannot_enter_fails_its_job(make_rig: MakeRig, capfd: pytest.CaptureFixture[str]) -> None:
    """A failure of a known kind in enter is no bug: one fatal line, exit code 111, the job None."""

    def enter(key: str) -> Work:
        raise Temporary("no such user", detail="control/roles")

    rig = make_rig(enter)
    assert rig.do(b"x") is None
    assert rig.exits[0][1] == 111 << 8
    assert capfd.readouterr().err == "test: fatal: no such user (control/roles)\n"


def test_a_worker_killed_while_idle_is_not_used(make_rig: MakeRig) -> None:
    """An idle worker that somebody kills costs no job."""
    rig = make_rig()
    victim = _pid(rig.do(b"x"))
    os.kill(victim, signal.SIGKILL)
    rig.until(lambda: rig.exits)
    assert rig.pool.busy == 0
    assert _pid(rig.do(b"x")) != victim


def test_a_job_given_to_a_worker_that_has_just_died_is_none(make_rig: MakeRig) -> None:
    """Between a death and its notice a job can only fail; it is reported, once."""
    rig = make_rig()
    victim = _pid(rig.do(b"x"))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: "Z" in Path(f"/proc/{victim}/stat").read_text().split(), "the worker's end")
    assert rig.do(b"x") is None
    assert rig.pool.busy == 0


def test_a_report_just_before_the_end_counts(make_rig: MakeRig) -> None:
    """A worker that dies after its report has done its job, whichever of the two is noticed first."""

    def enter(key: str) -> Work:
        def work(record: bytes, descriptors: list[int]) -> bytes:
            os.write(descriptors[0], b"+done")  # the report, on the channel's own number
            os.kill(os.getpid(), signal.SIGKILL)
            return b""

        return work

    rig = make_rig(enter)
    theirs: list[socket.socket] = []
    pair = fds.pair

    def keep_theirs() -> tuple[socket.socket, socket.socket]:
        ours, channel = pair()
        theirs.append(channel.dup())
        return ours, channel

    fds.pair = keep_theirs  # the only way to hand a worker its own channel
    try:
        worker = rig.pool._fork("")
    finally:
        fds.pair = pair
    rig.pool._idle[""] = [worker]
    rig.give(b"x", "", (theirs[0].fileno(),))
    wait_for(lambda: "Z" in Path(f"/proc/{worker.pid}/stat").read_text().split(), "the worker's end")
    rig.pool._reap()  # as if SIGCHLD had been read before the channel
    assert rig.results == [b"done"]
    assert len(rig.pool) == 0
    theirs[0].close()


def test_descriptors_go_along_and_are_closed(make_rig: MakeRig) -> None:
    """A worker gets copies of the descriptors and has lost them when the job is done; the caller keeps its own."""
    rig = make_rig()
    before = rig.do(b"fds")
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    assert rig.do(b"read", "", (reader,)) == b"hello"
    assert rig.do(b"fds", "", (reader, writer)) != before
    assert rig.do(b"fds") == before
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")  # nobody else holds the reading end
    os.close(writer)


def test_work_may_take_its_descriptors(make_rig: MakeRig) -> None:
    """What work takes out of the list is its own to close, and the worker goes on."""
    rig = make_rig()
    reader, writer = os.pipe()
    worker = rig.give(b"take", "", (reader,))
    rig.until(lambda: rig.results)
    assert rig.results == [b"taken"]
    assert _pid(rig.do(b"x")) == worker
    fds.close_all((reader, writer))


def test_a_worker_has_no_descriptor_that_it_does_not_need(make_rig: MakeRig) -> None:
    """A worker holds its channel and the log: not what is the spawner's, on whichever number, nor another worker's."""
    rig = make_rig()
    open_before, hold = os.pipe()
    rig.do(b"x", "a")
    listing = rig.do(b"fds", "b")
    assert listing is not None
    numbers = [int(number) for number in listing.split()]
    assert numbers[:3] == [0, 1, 2]
    assert len(numbers) == 5  # 0, 1, 2, the channel, and the directory that is being listed
    assert rig.do(b"standard", "b") == b"/dev/null /dev/null"
    fds.close_all((open_before, hold))


def test_a_thousand_jobs_leak_nothing(make_rig: MakeRig) -> None:
    """After 1000 jobs with descriptors, in workers that come and go, spawner and worker hold what they held before."""
    rig = make_rig(jobs_per_worker=150)
    reader, writer = os.pipe()
    worker_before = rig.do(b"fds")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        os.write(writer, b"x")
        rig.do(b"read", "", (reader, writer))
    assert len(os.listdir("/proc/self/fd")) == before
    assert len((rig.do(b"fds") or b"").split()) == len((worker_before or b"").split())
    assert len(rig.pool) == 1
    fds.close_all((reader, writer))


def test_keys_that_have_gone_leave_nothing(make_rig: MakeRig) -> None:
    """A spawner that has seen many keys remembers only those of its workers."""
    rig = make_rig(workers=2, per_key=2)
    for number in range(20):
        rig.do(b"x", f"k{number}")
        rig.do(b"die", f"k{number}")
    assert (len(rig.pool._idle), len(rig.pool._per_key)) == (0, 0)


def test_a_worker_that_becomes_a_program_counts_until_its_exit(make_rig: MakeRig, tmp_path: Path) -> None:
    """exec ends the channel, not the job: that ends, as None with the status, when the program does."""
    rig = make_rig(workers=1, per_key=1)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pid = rig.give(b"exec read line < %b; exit 7" % os.fsencode(gate))
    worker = rig.pool._workers[pid]
    rig.until(lambda: worker.channel.fileno() < 0)
    assert rig.pool.busy == 1 and not rig.pool.room("")
    assert rig.results == []
    gate.write_bytes(b"go\n")
    rig.until(lambda: rig.results)
    assert rig.results == [None]
    assert rig.exits == [(pid, 7 << 8)]
    assert rig.pool.room("")


def test_a_worker_that_says_nonsense_gets_no_more_jobs(make_rig: MakeRig) -> None:
    """A datagram without a job, or of an unknown kind, ends the worker's channel and harms nobody else."""

    def enter(key: str) -> Work:
        def work(record: bytes, descriptors: list[int]) -> bytes:
            channel = max(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
            fds.send_record(socket.socket(fileno=channel), record)
            return b"done"

        return work

    rig = make_rig(enter)
    assert rig.do(b"!nonsense") is None
    assert rig.do(b"+twice") == b"twice"  # its second report has no job and ends it
    rig.until(lambda: len(rig.pool) == 0)
    assert rig.do(b"+" + bytes(70000)) is None  # larger than a record may be


def test_a_job_that_cannot_be_sent_is_an_error(make_rig: MakeRig) -> None:
    """A record that no datagram holds raises OSError and leaves no worker behind that waits for it."""
    rig = make_rig()
    with pytest.raises(OSError):
        rig.give(bytes(10_000_000))
    assert rig.pool.busy == 0
    assert rig.results == []
    assert rig.do(b"x") is not None


def test_retire_all_lets_every_worker_go(make_rig: MakeRig) -> None:
    """Idle workers leave at once, busy ones after their job; the next job has a worker of now."""
    rig = make_rig()
    reader, writer = os.pipe()
    busy = rig.give(b"read", "", (reader,))
    idle = _pid(rig.do(b"x"))
    rig.pool.retire_all()
    assert rig.pool.pids == {busy}
    os.write(writer, b"x")
    rig.until(lambda: len(rig.exits) == 2)
    assert {pid for pid, _ in rig.exits} == {busy, idle}
    assert rig.results[-1] == b"x"
    fds.close_all((reader, writer))


def test_close_ends_and_reaps_every_worker(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle workers leave, busy ones are terminated, deaf ones killed; their jobs are None and no zombie is left."""
    monkeypatch.setattr(spawner, "STOP_S", 1.0)
    rig = make_rig()
    reader, writer = os.pipe()
    deaf = rig.give(b"ignore", "", (writer,))
    assert os.read(reader, 1) == b"r"
    idle = _pid(rig.do(b"x"))
    busy = rig.give(b"read", "", (reader,))
    rig.pool.close()
    assert rig.results[1:] == [None, None]
    assert dict(rig.exits) == {deaf: signal.SIGKILL, idle: 0, busy: signal.SIGTERM}
    for pid in (deaf, idle, busy):
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    fds.close_all((reader, writer))


def test_workers_leave_when_the_spawner_is_gone() -> None:
    """A spawner that is killed takes its workers along: idle at once, busy after their job."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # a spawner of its own, since it will be killed
        try:
            loop = Loop()
            pool: Pool[str] = Pool(loop, Trade(b"test", b"works"), _enter, Limits())
            worker = pool.give("", b"x", (), lambda result: (os.write(writer, b"%d" % worker), None)[1])
            loop.run()
        finally:
            os._exit(1)
    os.close(writer)
    worker = int(os.read(reader, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.read(reader, 1) == b""  # the worker closed it at its start, the spawner by its death
    wait_for(lambda: not _runs(worker), "the worker's end")
    os.close(reader)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_signal_between_fork_and_work_is_the_workers_own(make_rig: MakeRig) -> None:
    """SIGTERM to a worker that is just starting ends that worker and is not taken for one to the spawner."""
    rig = make_rig()
    heard: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    rig.loop.on_signal(signal.SIGTERM, lambda: heard.append("spawner"))
    try:
        for _ in range(20):
            os.kill(rig.give(b"x"), signal.SIGTERM)
        rig.until(lambda: len(rig.exits) == 20)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == []
    assert {status for _, status in rig.exits} == {signal.SIGTERM}


def test_a_signal_before_work_waits_for_what_enter_says_of_it(make_rig: MakeRig) -> None:
    """A worker that handles SIGTERM does the job that it has been given, however early the signal comes."""
    entered, goes_on = os.pipe(), os.pipe()

    def enter(key: str) -> Work:
        os.write(entered[1], b"x")
        os.read(goes_on[0], 1)
        signal.signal(signal.SIGTERM, lambda *_: None)
        return lambda record, descriptors: b"done"

    rig = make_rig(enter, keep=(entered[1], goes_on[0]))
    pid = rig.give(b"x")
    os.read(entered[0], 1)
    os.kill(pid, signal.SIGTERM)
    os.write(goes_on[1], b"x")
    rig.until(lambda: rig.results)
    assert rig.results == [b"done"]
    fds.close_all([*entered, *goes_on])
