"""start: run the queue service, userd, the spawners and send, with the descriptors between them (qmail-start).

Usage:   qm-start [defaultdelivery [logger arg ...]]
Reads:   control/roles
Env:     QMHOME, QMREADY (a descriptor that gets one byte when all serve)
Writes:  fd 2 (log, or the logger's input)
As:      root, or the owner of a private system; parses nothing
Exits:   0 after SIGTERM, once send has settled its deliveries; 111 when a program died or could not start, or others
         can write the home
See:     qm-start(8), qmail.md section 8

If one of them dies the others are stopped in order and we exit: half a mail system is worse than one that its
supervisor starts anew. SIGHUP and SIGALRM are passed on to send, SIGHUP to the others that read it.
"""

import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Final

from qm import errors
from qm.disk.safety import refuse_dangers
from qm.unix import chain, fds, log, privs, title
from qm.unix.program import Argv, Env, program, ready

NAME: Final = b"qm-start"
READY_S: Final = 30.0  # a service that is not ready by then has failed
SEND_STOP_S: Final = 8.0  # deliveries in flight may take this long at the end; then they are deferred
OTHERS_STOP_S: Final = 1.0  # each of the others; all together stay below the supervisor's KILL_S less its PATIENCE_S
DEFAULT_DELIVERY: Final = b"./Mailbox"
_PASSED_ON: Final = (signal.SIGHUP, signal.SIGALRM)
_WAITED: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *_PASSED_ON}


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


class _Children:
    """Our programs by name, in the order of their start."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._pids: dict[bytes, int] = {}

    def start(self, argv: Sequence[bytes], moves: dict[int, int], ready: bool = False) -> None:
        """Fork *argv* with descriptors *moves*; with *ready*, wait until it says that it serves."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._become(argv, moves, writer if ready else -1)
        os.close(writer)
        self._pids[argv[0]] = pid
        try:
            if ready and not (select.select([reader], [], [], READY_S)[0] and os.read(reader, 1)):
                raise errors.Temporary(f"{os.fsdecode(argv[0])} did not start", detail="its own lines above say why")
        finally:
            os.close(reader)

    def _become(self, argv: Sequence[bytes], moves: dict[int, int], ready_fd: int) -> None:
        """In the child; never returns."""
        code = errors.TEMPORARY
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            env = {key: value for key, value in self._env.items() if key != b"QMREADY"}
            if ready_fd >= 0:
                moves = {**moves, 3: ready_fd}
                env[b"QMREADY"] = b"3"
            fds.place({2: 2, **moves})
            fds.close_from(4 if ready_fd >= 0 else 3)
            title.show(argv)
            code = chain.prepare(argv, env)(env)
        finally:
            os._exit(code)

    def signal(self, name: bytes, signum: int) -> None:
        if name in self._pids:
            os.kill(self._pids[name], signum)

    def reap(self) -> list[str]:
        """Those that have ended, each with how."""
        ended = []
        for name, pid in list(self._pids.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._pids[name]
                ended.append(f"{os.fsdecode(name)} ({_how(status)})")
        return ended

    def stop(self, name: bytes, limit_s: float) -> None:
        """End *name* and wait; after *limit_s* it is killed."""
        pid = self._pids.pop(name, None)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + limit_s
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() >= deadline_s:
                log.warning(NAME, f"{os.fsdecode(name)} did not stop in {limit_s:.0f} s; killed")
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)

    def stop_all(self) -> None:
        """send first, so that its deliveries end well; then what it needs."""
        for name in (b"qm-send", b"qm-lspawn", b"qm-rspawn", b"qm-queued", b"qm-userd"):
            self.stop(name, SEND_STOP_S if name == b"qm-send" else OTHERS_STOP_S)


def _start_logger(argv: Sequence[bytes], env: Env) -> None:
    """Put a logger behind our descriptor 2; it ends when the last of us has."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        code = errors.TEMPORARY
        try:
            fds.place({0: reader})
            fds.close_from(3)
            privs.become(privs.role("qmaill"))
            title.show(argv)
            code = chain.prepare(argv, env)(env)
        finally:
            os._exit(code)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)


def _start_all(children: _Children, default_delivery: bytes) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    idle = {0: null, 1: null}
    children.start([b"qm-queued"], idle, ready=True)
    children.start([b"qm-userd"], idle, ready=True)
    local_send, local_spawn = fds.pair()
    remote_send, remote_spawn = fds.pair()
    children.start([b"qm-lspawn", default_delivery], {0: local_spawn.fileno(), 1: null})
    children.start([b"qm-rspawn"], {0: remote_spawn.fileno(), 1: null}, ready=True)  # it must survive SIGHUP
    children.start([b"qm-send"], {0: local_send.fileno(), 1: remote_send.fileno()}, ready=True)
    for channel in (local_send, local_spawn, remote_send, remote_spawn):
        channel.close()
    os.close(null)


def _watch(children: _Children) -> int:
    """Until we are told to stop, or one of the programs ends."""
    while True:
        signum = signal.sigwait(_WAITED)
        if signum in (signal.SIGTERM, signal.SIGINT):
            children.stop_all()
            return errors.OK
        if signum in _PASSED_ON:
            children.signal(b"qm-send", signum)
            if signum == signal.SIGHUP:
                children.signal(b"qm-userd", signum)
                children.signal(b"qm-queued", signum)
                children.signal(b"qm-rspawn", signum)
        ended = children.reap()
        if ended:
            log.alert(NAME, f"{', '.join(ended)} ended; stopping the others")
            children.stop_all()
            return errors.TEMPORARY


@program()
def main(argv: Argv, env: Env) -> int:
    refuse_dangers()
    default_delivery = argv[1] if len(argv) > 1 else DEFAULT_DELIVERY
    if len(argv) > 2:
        _start_logger(argv[2:], env)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    children = _Children(env)
    try:
        _start_all(children, default_delivery)
    except errors.QmError:
        children.stop_all()
        raise
    ready(env)
    return _watch(children)
