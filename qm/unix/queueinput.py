"""What callers of qm-queue give, and of what stands in its place: the message on descriptor 0, the envelope on 1.

Raises Deferred and Refused (qm.wire.queuecode), whose codes are what the program exits with (qmail.md section 5).
"""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Final

from qm.errors import QmError
from qm.unix.program import Env, enter_home
from qm.wire import queuecode
from qm.wire.envelope import Envelope
from qm.wire.queuecode import Deferred, Refused, failure
from qm.wire.queueinput import EnvelopeReader

DEATH_S: Final = 86400  # a writer gives up; below STALE_S of the sweep (qmail.md 4.6)
_READ_MAX: Final = 65536
_IGNORED: Final = ("SIGPIPE", "SIGVTALRM", "SIGPROF", "SIGQUIT", "SIGINT", "SIGHUP", "SIGXCPU", "SIGXFSZ")


def _timed_out(*_: object) -> None:
    raise failure(queuecode.TIMEOUT)


def hand_over(env: Env, act: Callable[[], int]) -> int:
    """The exit code of a program that is run as qm-queue is: *act*'s, in the home, or that of what it raises."""
    _settle_signals()
    try:
        enter_home(env)
    except QmError:
        return queuecode.HOME
    try:
        _check_descriptors()
        return act()
    except (Deferred, Refused) as error:
        return error.code
    except MemoryError:
        return queuecode.MEMORY


def _settle_signals() -> None:
    """Whatever the caller may have blocked or ignored."""
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _timed_out)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.alarm(DEATH_S)


def _check_descriptors() -> None:
    """A descriptor of ours must not come to be where the caller's should be."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError as error:
            raise failure(queuecode.READ, error.strerror) from error


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_MAX)
    except OSError as error:
        raise failure(queuecode.READ, error.strerror) from error


def message() -> Iterator[bytes]:
    while chunk := _read(0):
        yield chunk


def envelope() -> Envelope:
    reader = EnvelopeReader()
    while chunk := _read(1):
        if reader.feed(chunk):
            return reader.envelope()
    raise failure(queuecode.READ)
