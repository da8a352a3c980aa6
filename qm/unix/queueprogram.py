"""QMAILQUEUE: a program in the place of the queue, as every client of qmail's runs one (qmail.md 5.1).

It is run for each message, in the home, with the message on descriptor 0, the envelope on 1, and a pipe for an error
text of its own on 6; what it exits with is one of qm-queue's codes.  It has a process group, which is killed if it
keeps us waiting.  What only our own queue can be told (DSN, a report's ID) it is not told.
"""

import os
import re
import select
import signal
import time
from typing import Final, NoReturn

from qm.unix import fds, oversee
from qm.unix.program import Env
from qm.unix.queueclient import NO_TRACE, TIMEOUT_S, Accepted, Trace
from qm.wire import date, queuecode
from qm.wire.envelope import ADDRESS_MAX, Envelope
from qm.wire.queuecode import Deferred, Refused, failure

TEXT_MAX: Final = 255  # bytes of a text on descriptor 6 that are used
TEXT_MIN: Final = 3  # bytes that make one
_HELD_MAX: Final = 65536  # bytes; what is written at once
_IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python; a child would inherit that
_STATUS: Final = re.compile(r"([45])\.(\d{1,3}\.\d{1,3}) +")


def _legacy(envelope: Envelope) -> bytes:
    """As qm-queue reads it (qmail.md section 5); raises Refused."""
    addresses = [envelope.sender, *(recipient.address for recipient in envelope.recipients)]
    if max(map(len, addresses)) > ADDRESS_MAX:
        raise failure(queuecode.TOO_LONG)
    if any(b"\0" in address for address in addresses):
        raise failure(queuecode.FORMAT, "a NUL in an address")
    return b"F%b\0" % addresses[0] + b"".join(b"T%b\0" % address for address in addresses[1:]) + b"\0"


def verdict(code: int, said: bytes) -> Deferred | Refused | None:
    """What the exit code, negative for a signal, and the beginning of the text on descriptor 6 mean; None: queued."""
    if code == queuecode.QUEUED:
        return None
    letter, text = said[:1], said[1:].decode("utf-8", "backslashreplace").strip()
    if code != queuecode.CUSTOM or len(said) < TEXT_MIN or letter not in (b"D", b"Z") or not text:
        if code < 0:
            return failure(queuecode.BUG, f"QMAILQUEUE was killed by signal {-code}")
        return failure(code, f"QMAILQUEUE exited with {code}")
    kind = Refused if letter == b"D" else Deferred
    told = _STATUS.match(text)
    fits = told is not None and told[1] == kind.status_class
    error = kind(text[told.end() :] if told and fits else text, status=told[2] if told and fits else "3.0")
    error.code = code
    return error


class Running:
    """One message on its way to one process; over after commit, abort or any exception."""

    def __init__(self, program: bytes, home: bytes, env: Env, trace: Trace, timeout_s: float) -> None:
        """Raises Deferred."""
        self._timeout_s = timeout_s
        self._held = bytearray()
        self._listens = True  # it has not closed its descriptor 0, or 1
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (message, self._message), (envelope, self._envelope), (error, said) = ends
        try:
            self._pid = self._start(program, home, env, {0: message, 1: envelope, 6: said})
        except OSError as failed:
            fds.close_all((self._message, self._envelope, error))
            raise failure(queuecode.MEMORY, failed.strerror) from failed
        finally:
            fds.close_all((message, envelope, said))
        self._output: oversee.Output | None = oversee.Output(error, TEXT_MAX)
        for fd in (self._message, self._envelope):
            os.set_blocking(fd, False)
        if trace.head:  # nobody there knows an ID
            self.write(b"%b%b; %b\n" % (trace.head, trace.tail, date.rfc5322(int(time.time()))))

    @staticmethod
    def _start(program: bytes, home: bytes, env: Env, places: dict[int, int]) -> int:
        pid = os.fork()
        if pid == 0:
            _become(program, home, env, places)
        return pid

    def write(self, chunk: bytes | memoryview) -> None:
        """More of the message; raises Deferred."""
        self._held += chunk
        if len(self._held) >= _HELD_MAX:
            self._pour(self._message)

    def _pour(self, fd: int) -> None:
        """Write what is held; a program that listens no more will say why.  Raises Deferred."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        while self._held and self._listens:
            if not poll.poll(self._timeout_s * 1000):
                self.abort()
                raise failure(queuecode.TIMEOUT, "QMAILQUEUE does not read")
            try:
                del self._held[: os.write(fd, self._held)]
            except BlockingIOError:
                pass
            except OSError:
                self._listens = False
        self._held.clear()

    def commit(self, envelope: Envelope) -> Accepted:
        """End the message and wait for the verdict; raises Deferred, Refused."""
        try:
            told = _legacy(envelope)
            self._pour(self._message)
            self._close_message()
            self._held += told
            self._pour(self._envelope)
        except BaseException:
            self.abort()
            raise
        pid, code, said = self._pid, *self._end(self._timeout_s)
        if code is None:
            raise failure(queuecode.TIMEOUT, f"QMAILQUEUE has not ended in {self._timeout_s:.0f} s")
        error = verdict(code, said)
        if error is None and not self._listens:
            error = failure(queuecode.READ, "QMAILQUEUE says yes to a message that it has not read")
        if error is not None:
            raise error
        return Accepted(b"qp%d" % pid)

    def _close_message(self) -> None:
        os.close(self._message)
        self._message = -1

    def _end(self, limit_s: float) -> tuple[int | None, bytes]:
        """Its exit code, None if it had to be killed, and what it has said."""
        output, self._output = self._output, None
        assert output is not None
        fds.close_all(fd for fd in (self._message, self._envelope) if fd >= 0)
        try:
            return oversee.wait(self._pid, output, limit_s), output.kept
        finally:
            os.close(output.fd)

    def abort(self) -> None:
        """Throw it away: a program that gets no end of an envelope has no message."""
        if self._output is not None:
            os.killpg(self._pid, signal.SIGTERM)
            self._end(oversee.GRACE_S)


def _become(program: bytes, home: bytes, env: Env, places: dict[int, int]) -> NoReturn:
    """In the child."""
    try:
        os.setpgid(0, 0)
        fds.place(places)
        fds.close_from(3, keep=(6,))
        for signum in _IGNORED:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(home)
        os.execve(program, [program], env)
    except OSError:
        pass  # the exit code says it
    finally:
        os._exit(queuecode.CANNOT_RUN)


class QueueProgram:
    """As QueueClient, for the program that QMAILQUEUE names; *home* is where that name begins."""

    def __init__(self, program: bytes, home: bytes, env: Env, timeout_s: float = TIMEOUT_S) -> None:
        self._program = program
        self._home = home
        self._env = env
        self._timeout_s = timeout_s
        self._last: Running | None = None

    def __enter__(self) -> "QueueProgram":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Also throws away a message that is not committed."""
        last, self._last = self._last, None
        if last is not None:
            last.abort()

    def ensure(self) -> None:
        """There is nothing to connect to."""

    def begin(self, trace: Trace = NO_TRACE, name: bytes = b"") -> Running:
        """A new message, in a process of its own; nobody there knows *name*.  Raises Deferred."""
        self.close()
        self._last = Running(self._program, self._home, self._env, trace, self._timeout_s)
        return self._last
