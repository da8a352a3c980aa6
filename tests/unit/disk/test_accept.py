"""Accept, step by step; each failure leaves nothing.  (tests/crash cuts the same steps by killing.)"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm.disk import accept as steps
from qm.disk import queue, queuefile
from qm.disk.accept import STEPS, Draft, NotQueued, Piece, Store, accept
from qm.wire import queuecode, queueid
from qm.wire.envelope import Envelope, Recipient
from tests.crash.faults import Faults

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"),))
BOUNCE = b"1htpzqqd7xhat00k7pb"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    queue.make()
    opened = Store()
    yield opened
    opened.close()


def _draft(message: tuple[Piece, ...] | Iterator[Piece] = (b"Subject: x\n\nbody\n",), name: bytes = b"") -> Draft:
    return Draft(lambda name, _: b"Received: id " + name + b"\n", message, lambda: ENVELOPE, 1000, 77, name)


def _listing() -> dict[str, list[str]]:
    return {path: os.listdir(path) for path in (queue.TMP, queue.NEW) if os.listdir(path)}


def _whole(name: bytes, folder: str = queue.NEW) -> bytes:
    """The message of a queue file that passes its check."""
    fd = os.open(os.path.join(os.fsencode(folder), name), os.O_RDONLY)
    try:
        file = queuefile.read(fd)
        assert file.envelope == ENVELOPE._replace(uid=1000, pid=77, born_ns=queueid.time_ns(name))
        return b"".join(queuefile.checked_message(fd, file))
    finally:
        os.close(fd)


def test_an_accepted_message_is_whole_and_alone(store: Store) -> None:
    """The file in new/ has our Received field, the message, the stamped envelope and mode 0640; nothing else
    is left.
    """
    accepted = accept(store, _draft())
    assert not accepted.already
    assert queueid.valid(accepted.name)
    assert _whole(accepted.name) == b"Received: id " + accepted.name + b"\nSubject: x\n\nbody\n"
    assert _listing() == {queue.NEW: [accepted.name.decode()]}
    assert os.stat(os.path.join(queue.NEW, accepted.name.decode())).st_mode & 0o777 == 0o640


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=50), max_size=6), st.booleans())
def test_the_pieces_make_the_message(pieces: list[bytes], in_hand: bool) -> None:
    """Whatever the pieces of a message are, in hand or streamed, the file holds their sum."""
    opened = Store()
    name = accept(opened, _draft(tuple(pieces) if in_hand else iter(pieces))).name
    opened.close()
    assert _whole(name) == b"Received: id " + name + b"\n" + b"".join(pieces)


def test_a_piece_is_used_before_the_next_is_asked_for(store: Store) -> None:
    """The source of a streamed message may use one buffer for all pieces."""
    buffer = memoryview(bytearray(4))

    def pieces() -> Iterator[Piece]:
        for count in range(3):
            buffer[:] = b"%04d" % count
            yield buffer

    assert _whole(accept(store, _draft(pieces())).name).endswith(b"\n000000010002")


def test_no_two_messages_have_one_birth(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, or is set back, makes no ID twice."""
    clock = iter([5000, 5000, 5000, 4000, 6000])
    monkeypatch.setattr(steps.time, "time_ns", lambda: next(clock))
    assert [store.birth_ns() for _ in range(5)] == [5000, 5001, 5002, 5003, 6000]


def test_the_trigger_is_poked_with_the_id(store: Store) -> None:
    """send hears of each message by its ID."""
    reader = os.open(queue.TRIGGER, os.O_RDWR | os.O_NONBLOCK)
    name = accept(store, _draft()).name
    assert os.read(reader, 100) == name + b"\n"
    os.close(reader)


CALLS = ("open", "writev", "fsync", "close", "rename", "link")
STEP_NAMES = ("create", "write", "sync", "close", "publish", "sync_new")
CASES = [(call, step, {1: 63, 5: 66}.get(call, 53)) for call, step in enumerate(STEP_NAMES, 1)]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("call", "step", "code"), CASES)
def test_a_failing_call_is_a_temporary_failure_that_leaves_nothing(
    store: Store, call: int, step: str, code: int, error: int
) -> None:
    """Each system call of Accept may fail: the exit code says so, the log says where, and no file is left.

    Only one call fails, so this shows also that a failed fsync is not tried again.
    """
    with Faults(CALLS, error).at(call), pytest.raises(NotQueued) as caught:
        accept(store, _draft())
    assert caught.value.code == code
    assert not queuecode.permanent(code)
    assert f": {step}: {os.strerror(error)}" in caught.value.detail
    assert _listing() == {}


def test_no_other_call_can_fail_a_message(store: Store) -> None:
    """The calls above are all: the next one opens the trigger, and a message is safe without that."""
    faults = Faults(CALLS, errno.EIO)
    with faults.at(len(CASES) + 1):
        accept(store, _draft())
    assert faults.failed == "open"
    with faults.at(len(CASES) + 2):
        accept(store, _draft())
    assert faults.failed is None


@pytest.mark.parametrize("name", ["fsync", "link", "unlink"])
def test_a_bounce_may_fail_too(store: Store, name: str) -> None:
    """A derived message whose link, fsync or unlink fails is not acknowledged, and nothing is left."""
    with Faults((name,), errno.EIO).at(1), pytest.raises(NotQueued):
        accept(store, _draft(name=BOUNCE))
    assert _listing() == {}


def test_short_writes_are_completed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that takes one byte at a time gets all of them."""
    monkeypatch.setattr(os, "writev", lambda fd, pieces: os.write(fd, b"".join(pieces)[:1]))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    name = accept(store, _draft()).name
    assert _whole(name).endswith(b"body\n")


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
@pytest.mark.parametrize("name", [b"", BOUNCE])
def test_an_exception_after_any_step_leaves_nothing(store: Store, cut: int, name: bytes) -> None:
    """Cut anywhere by an exception, Accept cleans up behind itself, and the next message goes through."""

    class Cut(BaseException):
        pass

    def stop(_: steps.Entry) -> None:
        raise Cut

    with pytest.raises(Cut):
        accept(store, _draft(name=name), (*STEPS[:cut], stop, *STEPS[cut:]))
    assert _listing() == {}
    assert accept(store, _draft(name=name)) == (name or os.listdir(queue.NEW)[0].encode(), False)


@pytest.mark.parametrize("fails", ["message", "envelope"])
def test_a_source_that_fails_leaves_nothing(store: Store, fails: str) -> None:
    """When the client breaks off within message or envelope, its failure is passed on and nothing is left."""

    def message() -> Iterator[Piece]:
        yield b"some"
        if fails == "message":
            raise NotQueued(queuecode.READ)

    def envelope() -> Envelope:
        raise NotQueued(queuecode.READ)

    with pytest.raises(NotQueued) as caught:
        accept(store, _draft(message())._replace(envelope=envelope))
    assert caught.value.code == queuecode.READ
    assert caught.value.detail == ""
    assert _listing() == {}


def test_a_full_file_size_limit_is_a_write_error(store: Store) -> None:
    """A file that may not grow is a full disk: exit 53, and nothing left.  (In a child: the limit cannot be
    taken back.)
    """
    pid = os.fork()
    if pid == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            accept(store, _draft((b"x" * 10000,)))
        except NotQueued as error:
            os._exit(error.code)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == queuecode.WRITE
    assert _listing() == {}


@pytest.mark.parametrize("folder", [queue.NEW, queue.CUR, queue.STATE])
def test_a_derived_id_that_is_there_already_is_success(store: Store, folder: str) -> None:
    """A bounce that was queued before is not queued again, wherever send has brought it; the file is not touched."""
    path = Path(folder, BOUNCE.decode())
    path.write_bytes(b"as it was")
    assert accept(store, _draft(name=BOUNCE)) == (BOUNCE, True)
    assert path.read_bytes() == b"as it was"
    assert _listing() == ({queue.NEW: [BOUNCE.decode()]} if folder == queue.NEW else {})


def test_a_queued_bounce_survives_a_failure_of_its_repetition(store: Store) -> None:
    """When the second fsync fails, only what is ours is removed: the first bounce stays."""
    accept(store, _draft(name=BOUNCE))
    with Faults(("fsync",), errno.EIO).at(2), pytest.raises(NotQueued):
        accept(store, _draft(name=BOUNCE))
    assert _listing() == {queue.NEW: [BOUNCE.decode()]}


def test_litter_of_a_crash_does_not_stop_a_bounce(store: Store) -> None:
    """What a killed worker has left in tmp/ under any name is not in the way of the same bounce."""
    Path(queue.TMP, BOUNCE.decode()).write_bytes(b"litter")
    assert accept(store, _draft(name=BOUNCE)) == (BOUNCE, False)


def test_a_missing_queue_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its directories there is no Store: exit 62, with the path for the log, and no descriptor lost."""
    monkeypatch.chdir("/")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotQueued, match="queue/tmp: No such file") as caught:
        Store()
    assert caught.value.code == queuecode.QUEUE
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_queue_that_was_replaced_gets_nothing(store: Store) -> None:
    """A store whose directories were moved away writes no message into them that nobody would look for."""
    accept(store, _draft())
    for name in os.listdir(queue.NEW):
        os.unlink(Path(queue.NEW, name))
    for path in (queue.TMP, queue.NEW):
        os.rmdir(path)
    queue.make()
    with pytest.raises(NotQueued):
        accept(store, _draft())
    assert _listing() == {}
