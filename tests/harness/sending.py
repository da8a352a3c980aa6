"""send in this process: its queue in the current directory, a clock of the test's, spawners of a few lines.

Time stands still while there is something to do, and jumps to the next due time when there is not: a message's seven
days take seconds.
"""

import os
import select
import signal
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from qm.disk import queue
from qm.disk.control import Controls
from qm.disk.queuefile import footer
from qm.queue.session import Client, Session
from qm.send.logbook import Logbook
from qm.send.session import CONTROLS, Sender
from qm.unix import fds
from qm.unix.loop import Loop
from qm.wire import envelope as wire_envelope
from qm.wire import queueid
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_outcome, unpack_delivery
from qm.wire.envelope import Envelope
from tests.harness.door import Door

Answer = Callable[[Delivery], Outcome]
MESSAGE: Final = b"Received: by x; y\nFrom: ann@me.example\nSubject: hello\n\nbody\n"
MX: Final = b"mx.example"
DELIVERED: Final = Result(b"K", b"1.2.3.4 accepted message.\nRemote host said: 250 ok\n", b"2.0.0", MX, b"250 ok")
DEFERRED: Final = Result(b"Z", b"Connected to 1.2.3.4 but it is busy. (#4.3.2)\n", b"4.3.2", MX, b"450 later")
REFUSED: Final = Result(b"D", b"No such user. (#5.1.1)\n", b"5.1.1", MX, b"550 5.1.1 no such user")
LIMIT_S: Final = 60.0  # of the real clock, for one run


def outcome(delivery: Delivery, result: Result, health: Health = Health.UP) -> Outcome:
    """The same for each recipient."""
    return Outcome(delivery.number, health, (result,) * len(delivery.recipients))


def always(result: Result, health: Health = Health.UP) -> Answer:
    return lambda delivery: outcome(delivery, result, health)


def write_message(envelope: Envelope, text: bytes = MESSAGE, folder: str = queue.NEW) -> bytes:
    """Put a queue file where send finds it; *envelope* has its birth.  Gives its ID."""
    name = queueid.make(envelope.born_ns, len(os.listdir(queue.NEW)) + len(os.listdir(queue.CUR)) + 1)
    records = wire_envelope.encode(envelope._replace(uid=0, pid=1))
    end = footer(len(text), zlib.crc32(text), len(records), zlib.crc32(records))
    Path(folder, name.decode()).write_bytes(text + records + end)
    return name


def make_home(controls: Mapping[str, str] = {}) -> None:
    """A queue and control files in the current directory."""
    for folder in ("control", "queue"):
        os.makedirs(folder, exist_ok=True)
    for name, text in {"me": "me.example\n", **controls}.items():
        Path("control", name).write_text(text)
    queue.make()


class SharedDoor(Door):
    """Serves many connections, whichever has something to say."""

    def _run(self) -> None:
        self.crowded = True  # a session comes back after each message
        resting: list[socket.socket] = []
        while True:
            for one in select.select([self._listener, *resting], [], [])[0]:
                if one is not self._listener:
                    if not Session(self.shop, one, Client(self.uid, 77, self.timeout_s)).serve():
                        resting.remove(one)
                        one.close()
                    continue
                try:
                    resting.append(self._listener.accept()[0])
                except OSError:
                    for channel in resting:
                        channel.close()
                    return


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class _TimedPoll:
    """An epoll that knows how much CPU time passes between two waits."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._back_s = time.thread_time()
        self.turns_s: list[float] = []

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        self.turns_s.append(time.thread_time() - self._back_s)
        events = self._poll.poll(timeout_s)
        self._back_s = time.thread_time()
        return events

    def __getattr__(self, name: str) -> object:
        return getattr(self._poll, name)


class TimedLoop(Loop):
    """`turns_s` are the lengths of its turns, in CPU seconds: what others do to the machine does not count."""

    def __init__(self) -> None:
        super().__init__()
        self._timed = self._poll = _TimedPoll(self._poll)  # type: ignore[assignment]

    @property
    def turns_s(self) -> list[float]:
        return self._timed.turns_s


class _Loop(Loop):
    """The monotonic clock that decides about destinations is the test's too."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.now_s = clock  # type: ignore[method-assign]


class PlayedSpawner:
    """lspawn or rspawn: answers each delivery at once."""

    def __init__(self, loop: Loop, clock: Clock, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[tuple[int, Delivery, bytes]] = []  # when, what, and the message
        self._clock = clock
        self.theirs, self._channel = fds.pair()
        loop.watch(self._channel.fileno(), self._readable)

    def _readable(self) -> None:
        record, descriptors = fds.recv_record(self._channel)
        text = b"".join(os.pread(fd, 1 << 20, 0) for fd in descriptors)
        fds.close_all(descriptors)
        delivery = unpack_delivery(record)
        self.seen.append((int(self._clock()), delivery, text))
        fds.send_record(self._channel, pack_outcome(self.answer(delivery)))

    def close(self) -> None:
        self.theirs.close()
        self._channel.close()

    def times(self) -> list[int]:
        return [at_s for at_s, _, _ in self.seen]


class Sending:
    """One life of send; `run` it, then `close` it."""

    def __init__(self, clock: Clock, local: Answer, remote: Answer, controls: Mapping[str, str] = {}) -> None:
        make_home(controls)
        self.clock = clock
        self.loop = _Loop(clock)
        self.local = PlayedSpawner(self.loop, clock, local)
        self.remote = PlayedSpawner(self.loop, clock, remote)
        self.sender = Sender(
            self.loop, Controls(CONTROLS), Logbook(), self.local.theirs.fileno(), self.remote.theirs.fileno(), clock
        )
        self.loop.before_wait.append(self._advance)
        self._until_s = float("inf")
        self._deadline_s = 0.0

    def run(self, until_s: float = float("inf")) -> None:
        """Until nothing is left to do, or nothing before *until_s*."""
        self._until_s = until_s
        self._deadline_s = time.monotonic() + LIMIT_S
        self.loop.run()

    def _advance(self) -> None:
        assert time.monotonic() < self._deadline_s, f"{len(self.sender._trials.open)} messages do not end"
        if not is_idle(self.sender):
            return
        due_s = self.sender._backlog.next_due_s()
        if due_s is None or due_s >= self._until_s:
            self.loop.stop()
        else:
            self.clock.now_s = max(self.clock.now_s, due_s)
            self.loop.after(0.0, lambda: None)

    def close(self) -> None:
        self.local.close()
        self.remote.close()
        let_go(self.sender, self.loop)


def is_idle(sender: Sender) -> bool:
    """Whether everything that is due has been done."""
    return not (sender._trials.open or sender._chores or sender._backlog._fresh or os.listdir(queue.NEW))


def let_go(sender: Sender, loop: Loop) -> None:
    """Let go of the queue, so that another send may have it."""
    ledger = sender._trials._ledger
    sender.close()
    fds.close_all([ledger._cur_fd, ledger._state_fd])
    loop.forget()
    signal.set_wakeup_fd(-1)
