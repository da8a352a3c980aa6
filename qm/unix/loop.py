"""The event loop of every long-lived program: descriptors, timers, signals.

One thread, epoll, no callbacks from signal handlers: a signal only makes its number readable here.  A callback that
raises ends the program, but for the failure kinds that it handles itself.
"""

import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

Callback = Callable[[], None]

_IDLE_S: Final = 3600.0  # longest sleep; a clock that jumps is noticed within this


class Timer:
    """A callback that is due at *when_s* of the monotonic clock, unless it is cancelled."""

    __slots__ = ("when_s", "callback")

    def __init__(self, when_s: float, callback: Callback) -> None:
        self.when_s = when_s
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: "Timer") -> bool:
        return self.when_s < other.when_s


class Loop:
    """Watch descriptors until `stop`; level-triggered."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, list[Callback]] = {}
        self._fresh: set[int] = set()  # new since the last wait: an event is of what had the number before
        self._wakeup: tuple[int, int] | None = None
        self._running = False
        self.before_wait: list[Callback] = []  # called before each wait, in order

    def watch(self, fd: int, callback: Callback) -> None:
        """Call *callback* whenever *fd* is readable or closed by its peer."""
        self._readers[fd] = callback
        self._apply(fd, new=fd not in self._writers)

    def unwatch(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._apply(fd)

    def watch_write(self, fd: int, callback: Callback) -> None:
        self._writers[fd] = callback
        self._apply(fd, new=fd not in self._readers)

    def unwatch_write(self, fd: int) -> None:
        if self._writers.pop(fd, None) is not None:
            self._apply(fd)

    def _apply(self, fd: int, new: bool = False) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        if new:
            try:
                self._poll.register(fd, mask)
                self._fresh.add(fd)
                return
            except FileExistsError:
                pass  # watched again after a change
        if mask:
            self._poll.modify(fd, mask)
        else:
            self._poll.unregister(fd)

    def at(self, when_s: float, callback: Callback) -> Timer:
        """Call *callback* once, at *when_s* of time.monotonic."""
        timer = Timer(when_s, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def after(self, delay_s: float, callback: Callback) -> Timer:
        return self.at(time.monotonic() + delay_s, callback)

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call *callback* in the loop, not in a handler, after *signum*."""
        if self._wakeup is None:
            self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
            self.watch(self._wakeup[0], self._signalled)
        self._signals.setdefault(signum, []).append(callback)
        signal.signal(signum, lambda *_: None)
        signal.siginterrupt(signum, False)

    def _signalled(self) -> None:
        assert self._wakeup is not None
        for signum in sorted(set(os.read(self._wakeup[0], 512))):
            for callback in self._signals.get(signum, ()):
                callback()

    def stop(self) -> None:
        """After this no callback is called: what the rest of this turn's events tell of may have been read already."""
        self._running = False

    @staticmethod
    def now_s() -> float:
        """The clock of `at`."""
        return time.monotonic()

    def run(self) -> None:
        """Run until `stop`."""
        self._running = True
        while self._running:
            for callback in self.before_wait:
                callback()
            self._turn(self._poll.poll(self._fire_due()))

    def _turn(self, events: list[tuple[int, int]]) -> None:
        self._fresh.clear()
        for fd, mask in events:
            if not self._running:
                return
            if fd in self._fresh:
                continue
            if mask & ~select.EPOLLOUT:
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()
            if mask & ~select.EPOLLIN:
                writer = self._writers.get(fd)
                if writer is not None:
                    writer()

    def _fire_due(self) -> float:
        """Call what is due; how many seconds to wait for the next."""
        timers = self._timers
        now_s = time.monotonic()
        fired = False
        while timers and (timers[0].callback is None or timers[0].when_s <= now_s):
            callback = heapq.heappop(timers).callback
            if callback is not None:
                callback()
                fired = True
        if fired or not self._running:
            return 0.0  # what it has done, before_wait must see before we wait
        return max(0.0, min(timers[0].when_s - now_s, _IDLE_S)) if timers else _IDLE_S

    def forget(self) -> None:
        """In a forked child: let go of what the parent's loop holds, without touching the parent's."""
        self._poll.close()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._wakeup:
                os.close(fd)
            for signum in self._signals:
                signal.signal(signum, signal.SIG_DFL)
