"""One service of the supervisor: forked, watched until it serves, signalled, reaped.

A service has its own session and process group, so that what is left of one that died can be told to end too.
"""

import gc
import os
import signal
from collections.abc import Callable
from typing import Final

from qm import errors
from qm.supervise.policy import Service, next_delay
from qm.supervise.status import start_ticks
from qm.unix import chain, fds, log, program, title
from qm.unix.loop import Loop
from qm.unix.program import Env

_READY_FD: Final = 3
_SENT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
_READY_MAX: Final = 100  # bytes of what a service says when it serves


class Child:
    """A service and, while it runs, its process."""

    def __init__(self, service: Service, stdin: int, output: int) -> None:
        """*stdin* is its descriptor 0; *output* its 1 and 2."""
        self.service = service
        self._stdin = stdin
        self._output = output
        self.pid = 0  # 0: not running
        self.ticks = 0  # its start, as status.start_ticks
        self.since_s = 0.0  # of the wall clock; when it started or died
        self.ready = False
        self.text = b""  # what it said when it was ready: a port
        self.delay_s = 0.0
        self._reader = -1

    def start(self, loop: Loop, env: Env, now_s: float, changed: Callable[[], None]) -> None:
        """Fork it; *changed* is called when it serves, for a program of ours.  Raises OSError."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        gc.freeze()
        # a signal that comes before the child has left our handlers must wait until it has
        signal.pthread_sigmask(signal.SIG_BLOCK, _SENT)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(loop, env, writer)
        except OSError:
            fds.close_all((reader, writer))
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT)
        os.close(writer)
        self.pid, self.ticks, self.since_s, self.text, self._reader = pid, start_ticks(pid), now_s, b"", reader
        self.ready = not chain.is_ours(self.service.argv[0])  # a stranger's program does not say
        loop.watch(reader, lambda: self._heard(loop, changed))

    def _become(self, loop: Loop, env: Env, ready_fd: int) -> None:
        """In the child; never returns."""
        argv = self.service.argv
        code = errors.TEMPORARY
        try:
            loop.forget()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            fds.place({0: self._stdin, 1: self._output, 2: self._output, _READY_FD: ready_fd})
            fds.close_from(_READY_FD + 1)
            title.show(argv)
            env = {**env, **dict(self.service.env)}
            os.environb.update(self.service.env)  # for those of its workers that look there
            if chain.is_ours(argv[0]):
                env[b"QMREADY"] = b"%d" % _READY_FD
            code = chain.prepare(argv, env)(env)
        except errors.QmError as error:
            log.fatal(argv[0], str(error))
        except BaseException as error:  # a forked child must never run on in its parent's frames
            program.unforeseen(argv[0], error)
        finally:
            os._exit(code)

    def _heard(self, loop: Loop, changed: Callable[[], None]) -> None:
        text = os.read(self._reader, _READY_MAX)
        self._deaf(loop)
        if text:
            self.text, self.ready = log.clean(text.strip()), True
            changed()

    def _deaf(self, loop: Loop) -> None:
        if self._reader >= 0:
            loop.unwatch(self._reader)
            os.close(self._reader)
            self._reader = -1

    def ended(self, loop: Loop, now_s: float) -> None:
        """Its process has been reaped."""
        self._deaf(loop)
        self.delay_s = next_delay(self.delay_s, now_s - self.since_s)
        self.pid, self.since_s, self.ready = 0, now_s, False

    def signal(self, signum: int) -> None:
        if self.pid:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it and all its group without asking."""
        if self.pid:
            signal_group(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)


def signal_group(pid: int, signum: int) -> None:
    """Signal the processes of a group whose leader we have not reaped, so that the number cannot be another's."""
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass  # it has not come as far as its own group
