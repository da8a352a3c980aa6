"""The supervisor: starts the services in order, starts again what dies, stops all.

The first service is the one that the others need: it is stopped when they have ended, and the logger at the very end.

Everything that they write goes to qm-log by one pipe, of which we hold both ends, so that a logger that dies loses no
line. We never read the network, and write only run/ and the log.
"""

import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from qm.supervise import status
from qm.supervise.policy import Service
from qm.supervise.readiness import Readiness
from qm.supervise.service import Child, signal_group
from qm.unix import log
from qm.unix.loop import Loop
from qm.unix.program import Env

NAME: Final = b"qm-supervise"
KILL_S: Final = 25.0  # after SIGTERM; what is left then is killed, well before STOP_S
PATIENCE_S: Final = 12.0  # services that go on hold up the end of the one that they need for this long
FLUSH_S: Final = 2.0  # the logger writes what is left in the pipe


class Supervisor:
    def __init__(self, loop: Loop, services: Sequence[Service], env: Env, readiness: Readiness) -> None:
        """From here on descriptor 2 is the services' log."""
        self._loop = loop
        self._env = env
        self._readiness = readiness
        self._lines, lines_in = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._log = Child(Service("log", (b"qm-log", b"log")), self._lines, os.dup(2))
        self._children = [Child(service, null, lines_in) for service in services]
        self._stop = False
        self._first_told = False  # to end
        # our own lines must not wait for a logger that we may have to start: a description of its own, non-blocking
        own = os.open(f"/proc/self/fd/{lines_in}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.dup2(own, 2)
        os.close(own)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(signum, self._begin_stop)
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._loop.on_signal(signal.SIGALRM, self._all_due)
        try:
            for child in (self._log, *self._children):
                self._start(child)
            self._loop.run()
        finally:
            for child in self._children:  # none, but after a bug of ours: nobody would watch them
                child.signal(signal.SIGTERM)

    def _start(self, child: Child) -> None:
        if self._stop and child is not self._log:
            return
        try:
            child.start(self._loop, self._env, time.time(), lambda: self._serves(child))
        except OSError as error:
            log.alert(NAME, f"cannot start {child.service.name}: {error.strerror}")
            self._again(child)
            return
        self._write_status()
        self._tell_if_all()

    def _again(self, child: Child) -> None:
        self._loop.after(child.delay_s or 1.0, lambda: self._start(child))

    def _serves(self, child: Child) -> None:
        if child is not self._log:
            self._readiness.serves(child.service.name, child.text)
        self._write_status()
        self._tell_if_all()

    def _tell_if_all(self) -> None:
        if all(child.ready for child in self._children):
            self._readiness.all_serve()

    def _reap(self) -> None:
        """Every child that has ended; as init of a container we may have been given strangers'."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = next((c for c in (self._log, *self._children) if c.pid == ended.si_pid), None)
            if child is not None:
                signal_group(ended.si_pid, signal.SIGTERM)  # its workers have nobody any more
            _, wait_status = os.waitpid(ended.si_pid, 0)
            if child is not None:
                self._ended(child, os.waitstatus_to_exitcode(wait_status))

    def _ended(self, child: Child, code: int) -> None:
        child.ended(self._loop, time.time())
        if self._stop:
            if code not in (0, -signal.SIGTERM):  # the signal: it had not come as far as its own handling of it
                log.alert(NAME, f"{child.service.name} stopped with {_said(code)}")
            self._continue_stop()
            return
        log.alert(NAME, f"{child.service.name} ended with {_said(code)}; starting it again in {child.delay_s:g} s")
        self._readiness.died(child.service.name, code)
        self._write_status()
        self._again(child)

    def _reload(self) -> None:
        for child in (*self._children, self._log):
            child.signal(signal.SIGHUP)

    def _all_due(self) -> None:
        """For send; other programs would take it for an alarm of their own."""
        for child in self._children:
            if os.path.basename(child.service.argv[0]) in (b"qm-start", b"qm-send"):
                child.signal(signal.SIGALRM)

    def _begin_stop(self) -> None:
        if self._stop:
            return
        self._stop = True
        self._readiness.stopping()
        for child in self._children[1:]:
            child.signal(signal.SIGTERM)
        self._loop.after(PATIENCE_S, self._stop_first)
        self._loop.after(KILL_S, self._kill)
        self._continue_stop()

    def _stop_first(self) -> None:
        if not self._first_told:
            self._first_told = True
            self._children[0].signal(signal.SIGTERM)

    def _continue_stop(self) -> None:
        """One more has ended: whose turn is it?"""
        self._write_status()
        if not any(child.pid for child in self._children[1:]):
            self._stop_first()
        if any(child.pid for child in self._children):
            return
        if not self._log.pid:
            self._loop.stop()
        else:
            self._log.signal(signal.SIGTERM)
            self._loop.after(FLUSH_S, self._kill)

    def _kill(self) -> None:
        for child in (*self._children, self._log):
            if child.pid:
                log.alert(NAME, f"{child.service.name} does not stop; killed")
                child.kill()

    def _write_status(self) -> None:
        try:
            status.write(_row(child) for child in (*self._children, self._log))
        except OSError as error:
            log.warning(NAME, f"{status.PATH}: {error.strerror}")


def _row(child: Child) -> status.Row:
    name, text = child.service.name, child.text.decode("latin-1")
    return status.Row(name, child.pid, child.ticks, int(child.since_s), _state(child), text)


def _state(child: Child) -> str:
    if not child.pid:
        return "down"
    return "up" if child.ready else "starting"


def _said(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
