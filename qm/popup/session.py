"""The privileged half of popup: it has a speaker talk to the peer, and runs the subprogram for who wants to log in.

It reads nothing from the network; what it takes from the speaker is one record of known shape.  Everything that it
waits for ends: a speaker is killed after its deadline; the subprogram keeps time itself.
"""

import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Final, NoReturn

from qm import errors
from qm.popup.speaker import Talk, converse
from qm.unix import chain, confine, fds, log, privs, title, worker
from qm.unix.program import Env, unforeseen
from qm.wire.pop3auth import RECORD_MAX, Login, checkpassword_record, unpack_login
from qm.wire.record import Malformed, pack

NAME: Final = b"qm-popup"
TALKS_MAX: Final = 100  # conversations of one speaker
LEFT: Final = b"-"  # what a speaker reports when nobody wants to log in
SAID_NO: Final = 201  # how the process of a subprogram of ours ends when it has raised Permanent ...
SAID_LATER: Final = 202  # ... or Temporary: no program exits with these


class Speaker:
    """The process that talks for us, as *ids*.

    It is kept for the next connection of the same address and no other: should it ever be taken over, it learns the
    passwords of those who come from where its conqueror does, not everybody's.
    """

    def __init__(self, ids: privs.Ids) -> None:
        self._ids = ids
        self._address = b""
        self._pid = 0
        self._talks = 0
        self._channel: socket.socket | None = None

    def talk(self, address: bytes, talk: Talk, limit_s: float) -> Login | None:
        """Have the peer on descriptors 0 and 1 talked to: the next attempt to log in, or None if it has left."""
        if self._talks >= TALKS_MAX or address != self._address or not address:
            self.dismiss()
        try:
            return _report(self._tell(address, talk.pack()), talk, limit_s)
        except (OSError, Malformed) as error:
            log.alert(NAME, f"the process that talks to the peer has failed: {error}")
            self.dismiss()
            return None

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


def _report(channel: socket.socket, talk: Talk, limit_s: float) -> Login | None:
    """What the speaker has found out; raises TimeoutError, OSError, and Malformed for what no speaker of ours says."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(max(0.0, limit_s) * 1000):
        raise TimeoutError("no report")
    report, descriptors = fds.recv_record(channel, RECORD_MAX + 1)
    fds.close_all(descriptors)
    if report == worker.DONE + LEFT:
        return None
    if not report.startswith(worker.DONE):
        raise Malformed("it died")
    login = unpack_login(report.removeprefix(worker.DONE))
    if (login.method == b"APOP" and not talk.offer_apop) or not checkpassword_record(login, talk.banner):
        raise Malformed("a login that was not offered")
    return login


def _speak(channel: socket.socket, ids: privs.Ids) -> NoReturn:
    """In the child: one conversation after another, until popup ends."""
    link = channel.fileno()

    def work(record: bytes, descriptors: Sequence[int]) -> bytes:
        login = converse(link, Talk.unpack(record), descriptors)
        return LEFT if login is None else pack(*login)

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


def run(subprogram: chain.Runner, record: bytes, env: Env) -> int:
    """Run the subprogram in a process of its own, *record* on its descriptor 3; its exit code, negative for a signal.

    SIGTERM ends it with us.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        pid = _start(subprogram, record, env)
    except OSError as error:
        log.alert(NAME, f"cannot run a checkpassword: {error.strerror}")
        return SAID_LATER
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the pid stays its own until no signal can be sent to it
    signal.signal(signal.SIGTERM, before)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(subprogram: chain.Runner, record: bytes, env: Env) -> int:
    """The pid of a child that runs it; raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.write(writer, record)  # it fits
    os.close(writer)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        pid = os.fork()
        if pid == 0:
            _become(subprogram, reader, env)
        signal.signal(signal.SIGTERM, lambda *_: _end_with(pid))
        return pid
    finally:
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def _end_with(pid: int) -> NoReturn:
    os.kill(pid, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(errors.TEMPORARY)  # not reached


def _become(subprogram: chain.Runner, reader: int, env: Env) -> NoReturn:
    """In the child."""
    code = errors.TEMPORARY
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        fds.place({3: reader})
        fds.close_from(4)
        code = subprogram(env)
    except errors.Permanent:  # said in the log by who raised it
        code = SAID_NO
    except errors.Temporary:
        code = SAID_LATER
    except BaseException as error:  # a forked child must never run on in its parent's frames
        unforeseen(NAME, error)
        code = SAID_LATER
    finally:
        os._exit(code)
