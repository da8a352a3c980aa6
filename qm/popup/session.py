"""The privileged half of popup: it has a speaker talk to the peer, and runs the subprogram for who wants to log in.

It reads nothing from the network; what it takes from the speaker is one record of known shape.  Everything that it
waits for ends: a speaker is killed after its deadline; the subprogram keeps time itself.
"""

import mmap
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Final, NoReturn

from qm import errors
from qm.popup import policy
from qm.popup.speaker import converse
from qm.popup.talk import Talk
from qm.unix import chain, confine, fds, log, privs, title, worker
from qm.unix.checking import NoEntry
from qm.unix.program import Env, unforeseen
from qm.unix.userclient import UserClient
from qm.wire.pop3login import LONG_MAX, Failed, Left, Report, pack_report, unpack_report
from qm.wire.record import Malformed

NAME: Final = b"qm-popup"
TALKS_MAX: Final = 100  # conversations of one speaker
_REPORT_MAX: Final = LONG_MAX + 64
_NO: Final = 1
_LATER: Final = 2


class Speaker:
    """The process that talks for us, as *ids*.

    It is kept for the next connection of the same address and no other: should it ever be taken over, it learns the
    passwords of those who come from where its conqueror does, not everybody's.  And who hears what comes in clear never
    hears what comes under TLS: popup has one of these for each.
    """

    def __init__(self, ids: privs.Ids) -> None:
        self._ids = ids
        self._address = b""
        self._pid = 0
        self._talks = 0
        self._channel: socket.socket | None = None

    def talk(self, talk: Talk, limit_s: float) -> Report:
        """Have the peer on descriptors 0 and 1 talked to: what it wants."""
        address = talk.peer.address
        if self._talks >= TALKS_MAX or address != self._address or not address:
            self.dismiss()
        try:
            return _report(self._tell(address, talk.pack()), talk, limit_s)
        except (OSError, Malformed) as error:
            log.alert(NAME, f"the process that talks to the peer has failed: {error}")
            self.dismiss()
            return Left()

    def _tell(self, address: bytes, record: bytes) -> socket.socket:
        """Give *record* and the peer to a speaker; where it will report."""
        self._talks += 1
        if self._channel is not None:
            try:
                fds.send_record(self._channel, record, (0, 1))
                return self._channel
            except BrokenPipeError:
                self.dismiss()  # it has died since
        channel = self._fork(address)
        fds.send_record(channel, record, (0, 1))
        return channel

    def dismiss(self) -> None:
        """End the speaker, whatever it does."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _fork(self, address: bytes) -> socket.socket:
        ours, theirs = fds.pair()
        pid = os.fork()
        if pid == 0:
            _speak(theirs, self._ids)
        theirs.close()
        self._channel, self._pid, self._talks, self._address = ours, pid, 0, address
        return ours


def _report(channel: socket.socket, talk: Talk, limit_s: float) -> Report:
    """What the speaker has found out; raises TimeoutError, OSError, and Malformed for what no speaker of ours says."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(max(0.0, limit_s) * 1000):
        raise TimeoutError("no report")
    report, descriptors = fds.recv_record(channel, _REPORT_MAX)
    fds.close_all(descriptors)
    if not report.startswith(worker.DONE):
        raise Malformed("it died")
    return policy.offered(unpack_report(report.removeprefix(worker.DONE)), talk)


def _speak(channel: socket.socket, ids: privs.Ids) -> NoReturn:
    """In the child: one conversation after another, until popup ends."""
    link = channel.fileno()
    users = UserClient()

    def work(record: bytes, descriptors: Sequence[int]) -> bytes:
        return pack_report(converse(link, users, Talk.unpack(record), descriptors))

    try:
        privs.become(ids)
        confine.gain_nothing()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        fds.close_from(3, {link})
        title.job(NAME, b"talks to clients")
        worker.serve(NAME, channel, work)
    except errors.QmError as error:
        log.alert(NAME, str(error))
    except BaseException as error:  # a forked child must never run on in its parent's frames
        unforeseen(NAME, error)
    finally:
        os._exit(0)


class Subprogram:
    """What runs for one login after another, each in a process of its own."""

    def __init__(self, argv: Sequence[bytes], env: Env) -> None:
        self._argv = argv
        self.warm = chain.is_warm(argv, env)
        self._run = chain.prepare(argv, env)
        self._said = _Said()

    def run(self, record: bytes, env: Env) -> int | Failed:
        """Its exit code, negative for a signal; of a warm one that refuses the login what it said of that.

        *record* is on its descriptor 3.  SIGTERM ends it with us.
        """
        self._said.clear()
        before = signal.getsignal(signal.SIGTERM)
        try:
            pid = self._start(record, env)
        except OSError as error:
            log.alert(NAME, f"cannot run a checkpassword: {error.strerror}")
            return Failed(True, policy.DELAY_UNKNOWN)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the pid stays its own until no signal can be sent to it
        signal.signal(signal.SIGTERM, before)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return self._said.read() or code

    def _start(self, record: bytes, env: Env) -> int:
        """The pid of a child that runs it; raises OSError."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, record)  # it fits
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        try:
            pid = os.fork()
            if pid == 0:
                self._become(reader, env)
            signal.signal(signal.SIGTERM, lambda *_: _end_with(pid))
            return pid
        finally:
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

    def _become(self, reader: int, env: Env) -> NoReturn:
        """In the child."""
        code = errors.TEMPORARY
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
            fds.place({3: reader})
            fds.close_from(4)
            title.show(self._argv)
            code = self._run(env)
        except errors.QmError as error:  # said in the log by who raised it
            delay_s = error.delay_s if isinstance(error, NoEntry) else policy.DELAY_UNKNOWN
            self._said.write(Failed(isinstance(error, errors.Temporary), delay_s))
        except BaseException as error:  # a forked child must never run on in its parent's frames
            unforeseen(NAME, error)
            self._said.write(Failed(True, policy.DELAY_UNKNOWN))
        finally:
            os._exit(code)


class _Said:
    """Two bytes that a child shares with us until it execs: why it let nobody in.  Any exit code is a session's."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 2)

    def clear(self) -> None:
        self._page[0:2] = bytes(2)

    def write(self, failed: Failed) -> None:
        self._page[0:2] = bytes((_LATER if failed.later else _NO, min(failed.delay_s, policy.DELAY_UNKNOWN)))

    def read(self) -> Failed | None:
        kind, delay_s = self._page[0:2]
        return Failed(kind == _LATER, delay_s) if kind else None


def _end_with(pid: int) -> NoReturn:
    os.kill(pid, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(errors.TEMPORARY)  # not reached
