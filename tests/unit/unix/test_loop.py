"""The event loop, with pipes, timers and signals of this process."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from qm.unix import fds
from qm.unix.loop import Loop

SOON_S = 0.02


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)}
    loop = Loop()
    late = loop.after(10, lambda: pytest.fail("the loop does not end"))
    yield loop
    late.cancel()
    loop.forget()
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_a_readable_descriptor_calls_its_callback_until_it_is_read(loop: Loop, pipe: tuple[int, int]) -> None:
    """Level-triggered: what is left unread is announced again."""
    reader, writer = pipe
    seen: list[bytes] = []

    def read() -> None:
        seen.append(os.read(reader, 1))
        if len(seen) == 3:
            loop.stop()

    loop.watch(reader, read)
    os.write(writer, b"abc")
    loop.run()
    assert seen == [b"a", b"b", b"c"]


def test_after_stop_nothing_is_called(loop: Loop) -> None:
    """Not even for what became readable in the same turn: its reader may find nothing more, and wait for ever."""
    pipes = [os.pipe(), os.pipe()]
    seen: list[int] = []

    def read(fd: int) -> None:
        seen.append(fd)
        loop.stop()

    for reader, writer in pipes:
        loop.watch(reader, lambda fd=reader: read(fd))  # type: ignore[misc]
        os.write(writer, b"x")
    loop.run()
    assert len(seen) == 1
    fds.close_all([fd for ends in pipes for fd in ends])


def test_the_end_of_a_pipe_is_readable(loop: Loop, pipe: tuple[int, int]) -> None:
    """A descriptor whose peer has closed calls its callback, so that the end is read."""
    reader, writer = pipe
    loop.watch(reader, loop.stop)
    os.close(writer)
    loop.run()
    assert os.read(reader, 1) == b""


def test_reading_and_writing_have_callbacks_of_their_own(loop: Loop) -> None:
    """One descriptor may be watched for both; each callback is called for its own event only."""
    ours, theirs = fds.pair()
    seen: list[str] = []
    loop.watch(ours.fileno(), lambda: (seen.append("read"), loop.stop())[0])
    loop.watch_write(ours.fileno(), lambda: (seen.append("write"), loop.unwatch_write(ours.fileno()))[0])
    loop.after(SOON_S, lambda: theirs.send(b"x"))
    loop.run()
    assert seen == ["write", "read"]
    loop.unwatch(ours.fileno())
    loop.unwatch(ours.fileno())  # twice is no error
    ours.close(), theirs.close()


def test_an_unwatched_descriptor_is_silent(loop: Loop, pipe: tuple[int, int]) -> None:
    """After unwatch no callback comes, not even for an event that had already been noticed."""
    first, second = pipe, os.pipe()
    called: list[int] = []

    def once(mine: int, other: int) -> None:
        called.append(mine)
        loop.unwatch(other)
        loop.after(0, loop.stop)

    loop.watch(first[0], lambda: once(first[0], second[0]))
    loop.watch(second[0], lambda: once(second[0], first[0]))
    os.write(first[1], b"x"), os.write(second[1], b"x")
    loop.run()
    assert len(set(called)) == 1
    fds.close_all(second)


def test_an_event_is_not_for_the_next_owner_of_a_number(loop: Loop) -> None:
    """A callback closes a descriptor and its number is given anew: a pending event is not the new one's."""
    one, two = os.pipe(), os.pipe()
    called: list[str] = []

    def replace(mine: tuple[int, int], other: tuple[int, int]) -> None:
        loop.unwatch(mine[0])
        loop.unwatch(other[0])
        os.close(other[0])
        fresh, writer = os.pipe()
        assert fresh == other[0]
        loop.watch(fresh, lambda: called.append("fresh"))
        loop.after(SOON_S, loop.stop)
        extra.extend((fresh, writer))

    extra: list[int] = []
    loop.watch(one[0], lambda: replace(one, two))
    loop.watch(two[0], lambda: replace(two, one))
    os.write(one[1], b"x"), os.write(two[1], b"x")
    loop.run()
    assert called == []
    loop.unwatch(extra[0])
    fds.close_all({*one, *two, *extra})


def test_a_descriptor_may_be_watched_anew(loop: Loop, pipe: tuple[int, int]) -> None:
    """A second watch replaces the callback."""
    reader, writer = pipe
    loop.watch(reader, lambda: pytest.fail("the old callback"))
    loop.watch(reader, loop.stop)
    os.write(writer, b"x")
    loop.run()


def test_timers_fire_in_order_of_time(loop: Loop) -> None:
    """Whatever the order in which they were set; a cancelled one does not."""
    seen: list[str] = []
    now_s = time.monotonic()
    loop.at(now_s + SOON_S * 3, loop.stop)
    loop.at(now_s + SOON_S * 2, lambda: seen.append("second"))
    loop.at(now_s + SOON_S, lambda: seen.append("first"))
    loop.at(now_s + SOON_S, lambda: seen.append("never")).cancel()
    loop.at(now_s - 1, lambda: seen.append("overdue"))
    loop.run()
    assert seen == ["overdue", "first", "second"]


def test_a_timer_that_fires_late_does_not_fire_twice(loop: Loop) -> None:
    """at calls once."""
    seen: list[int] = []
    loop.after(0, lambda: seen.append(1))
    loop.after(SOON_S, loop.stop)
    loop.run()
    assert seen == [1]


def test_a_signal_calls_all_its_callbacks_in_the_loop(loop: Loop) -> None:
    """A signal interrupts nothing: it is heard when the loop next looks, by everyone who asked."""
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("one"))
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("two"))
    loop.on_signal(signal.SIGUSR2, loop.stop)
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    signal.raise_signal(signal.SIGUSR2)
    loop.run()
    assert seen == ["one", "two"]


def test_a_storm_of_signals_blocks_nobody(loop: Loop) -> None:
    """More signals than the pipe holds are no error; each kind is heard at least once."""
    seen: list[int] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append(1))
    loop.on_signal(signal.SIGUSR2, loop.stop)
    for _ in range(100_000):
        signal.raise_signal(signal.SIGUSR1)
    loop.after(SOON_S, lambda: signal.raise_signal(signal.SIGUSR2))
    loop.run()
    assert seen


def test_before_wait_is_called_before_each_wait(loop: Loop) -> None:
    """Work that others have put off is done before the loop sleeps."""
    seen: list[int] = []
    loop.before_wait.append(lambda: seen.append(1))
    loop.after(0, lambda: None)
    loop.after(SOON_S, loop.stop)
    loop.run()
    assert len(seen) >= 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # pytest-xdist has threads
def test_a_child_lets_go_without_harm_to_its_parent(loop: Loop, pipe: tuple[int, int]) -> None:
    """forget in a forked child leaves the parent's watches and signals alone, and the child's at their defaults."""
    reader, writer = pipe
    heard: list[str] = []
    loop.watch(reader, loop.stop)
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("parent"))
    pid = os.fork()
    if pid == 0:
        try:
            loop.forget()
            fine = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
            signal.raise_signal(signal.SIGUSR1) if fine else os._exit(1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == signal.SIGUSR1
    os.write(writer, b"x")
    loop.run()
    assert heard == []
