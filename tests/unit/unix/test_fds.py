"""Records with descriptors, and descriptors moved to fixed numbers."""

import array
import os
import socket
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.unix import fds
from qm.wire.record import RECORD_MAX, Malformed

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = fds.pair()
    with ours, theirs:
        yield ours, theirs


def _open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_records_keep_their_bounds(records: list[bytes]) -> None:
    """Each datagram is received as it was sent, none joined, none cut."""
    ours, theirs = fds.pair()
    with ours, theirs:
        for record in records:
            fds.send_record(ours, record)
        assert [fds.recv_record(theirs)[0] for _ in records] == records


def test_descriptors_come_in_order_and_close_on_exec(pair: Pair) -> None:
    """Received descriptors are what was sent, in that order, and no program inherits them."""
    pipes = [os.pipe() for _ in range(2)]
    fds.send_record(pair[0], b"x", [pipes[0][0], pipes[1][0]])
    record, received = fds.recv_record(pair[1])
    assert record == b"x"
    for (_, writer), reader in zip(pipes, received, strict=True):
        os.write(writer, b"%d" % writer)
        assert os.read(reader, 10) == b"%d" % writer
        assert not os.get_inheritable(reader)
    fds.close_all([*received, *pipes[0], *pipes[1]])


def test_the_end_of_a_channel_is_an_empty_record(pair: Pair) -> None:
    """A peer that has closed reads as b""."""
    pair[0].close()
    assert fds.recv_record(pair[1]) == (b"", [])


def test_a_record_that_is_too_large_is_refused_with_its_descriptors(pair: Pair) -> None:
    """Nothing of a datagram over the limit is used, and what came with it is closed."""
    before = _open_fds()
    fds.send_record(pair[0], bytes(RECORD_MAX + 1), [0])
    with pytest.raises(Malformed):
        fds.recv_record(pair[1])
    assert _open_fds() == before
    fds.send_record(pair[0], bytes(RECORD_MAX))
    assert len(fds.recv_record(pair[1])[0]) == RECORD_MAX


def test_too_many_descriptors_are_refused(pair: Pair) -> None:
    """A peer cannot fill our descriptor table."""
    before = _open_fds()
    rights = array.array("i", [0] * 50)
    pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    with pytest.raises(Malformed):
        fds.recv_record(pair[1])
    assert _open_fds() == before


def test_a_peer_that_has_gone_is_an_error_and_no_signal(pair: Pair) -> None:
    """Sending to nobody raises BrokenPipeError."""
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        fds.send_record(pair[0], b"x")
    with pytest.raises(BrokenPipeError):
        fds.send_record(pair[0], b"x", [0])


def _in_child(action: object) -> int:
    """Run *action* in a child; its exit code is 0 if it returns true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if action() else 1)  # type: ignore[operator]
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # pytest-xdist has threads


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
def test_place_is_right_whatever_overlaps(order: tuple[int, int, int]) -> None:
    """Descriptors may be sources and targets at once; each target is inheritable and nothing else is left open."""

    def check() -> bool:
        base = 20
        inodes = []
        for offset in range(3):
            reader, _ = os.pipe()
            os.dup2(reader, base + offset)
            inodes.append(os.fstat(reader).st_ino)
        before = len(os.listdir("/proc/self/fd"))
        fds.place({base + target: base + source for target, source in enumerate(order)})
        now = [os.fstat(base + target).st_ino for target in range(3)]
        inheritable = all(os.get_inheritable(base + target) for target in range(3))
        after = len(os.listdir("/proc/self/fd"))
        return now == [inodes[source] for source in order] and inheritable and after == before

    assert _in_child(check) == 0


def test_close_from_keeps_what_it_is_told_to() -> None:
    """Everything from the lowest number up is closed, but for those kept; those below are left alone."""

    def check() -> bool:
        for number in (50, 52, 55, 90, 700):
            os.dup2(0, number)
        fds.close_from(50, {52, 90, 3000, 2})
        names = os.listdir("/proc/self/fd")
        left = {int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}")}  # not that of the listing
        return {number for number in left if number >= 50} == {52, 90} and {0, 1, 2} <= left

    assert _in_child(check) == 0


def test_fill_standard_opens_what_is_closed() -> None:
    """After it 0, 1 and 2 are open, those that were open as they were, and no other is."""

    def check() -> bool:
        kept = os.fstat(1)
        os.close(0), os.close(2)
        before = set(os.listdir("/proc/self/fd")) - {"0", "2"}
        fds.fill_standard()
        after = set(os.listdir("/proc/self/fd")) - {"0", "2"}
        null = os.stat("/dev/null")
        same = os.path.samestat(os.fstat(1), kept) and all(os.path.samestat(os.fstat(fd), null) for fd in (0, 2))
        return same and len(after) <= len(before) + 1  # the directory that is listed has another number

    assert _in_child(check) == 0
