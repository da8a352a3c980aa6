"""The way into the queue: its service, or the program that QMAILQUEUE names (qmail.md 5.1)."""

import os
from types import TracebackType
from typing import Protocol

from qm.unix.program import Env
from qm.unix.queueclient import NO_TRACE, PATH, TIMEOUT_S, Accepted, QueueClient, Trace
from qm.wire.envelope import Envelope


class Submission(Protocol):
    """A message on its way; over after commit, abort or any exception."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Raises Deferred."""

    def commit(self, envelope: Envelope) -> Accepted:
        """Raises Deferred, Refused."""

    def abort(self) -> None: ...


class Queue(Protocol):
    def __enter__(self) -> "Queue": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def ensure(self) -> None:
        """Raises Deferred when the queue is out of reach."""

    def begin(self, trace: Trace = NO_TRACE, name: bytes = b"") -> Submission:
        """Raises Deferred."""


def is_foreign(env: Env) -> bool:
    return bool(env.get(b"QMAILQUEUE"))


def queue(env: Env, home: bytes = b".", timeout_s: float = TIMEOUT_S) -> Queue:
    """The queue that *env* chooses; *home* is what its paths begin with."""
    if is_foreign(env):
        from qm.unix.queueprogram import QueueProgram  # few need it

        return QueueProgram(env[b"QMAILQUEUE"], home, env, timeout_s)
    path = os.fsencode(PATH)
    return QueueClient(path if home == b"." else os.path.join(home, path), timeout_s)
