"""The parent: takes jobs from who may ask, gives each to a worker.  It reads nothing from a peer.

- Who may ask is decided by the uid that the kernel tells (SO_PEERCRED); others are dropped.
- At the limit of clients the one that has been silent longest makes room; our client library then connects again.
- Certificates are looked at before a job, at most once a second.  When they change, idle workers go, and those in a
  session after it: sessions go on.
- Without room or certificate the one who asks is told at once, and nothing is said to the peer.
"""

import os
import socket
from typing import Final

from qm.disk.control import Controls
from qm.tlsd import session
from qm.tlsd.certificates import PROTOCOLS, Certificates
from qm.tlsd.session import NAME
from qm.unix import door, fds, log, privs, program
from qm.unix.door import Complaints
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire.record import Malformed
from qm.wire.tlsjob import NO, YES, AskReady, Serve, Sorry, frame, unpack_question

CONTROLS: Final = ("concurrencytls",)
CLIENTS_MAX: Final = 1000  # connections of programs that may ask
LOOK_S: Final = 1.0  # at certificates, at most so often
QUESTION_MAX: Final = 2048  # bytes of a record
PAUSE_S: Final = 1.0  # after a connection that could not be taken
IDLE_S: Final = 60.0
JOBS: Final = 500  # sessions of one worker


class Server:
    """Clients of *listener*; only the uids in *may_ask* get answers."""

    def __init__(self, loop: Loop, listener: socket.socket, controls: Controls, may_ask: frozenset[int]) -> None:
        self._loop = loop
        self._listener = listener
        self._may_ask = may_ask
        self._complain = Complaints(NAME).say
        self._certificates = Certificates(lambda text: log.alert(NAME, text), lambda text: log.warning(NAME, text))
        self._look_at_s = 0.0
        self._clients: dict[int, socket.socket] = {}  # by descriptor, the longest silent first
        most = max(1, controls.number("concurrencytls"))
        self._pool: Pool[None] = Pool(loop, Trade(NAME, b"speaks TLS"), self._enter, Limits(most, most, JOBS, IDLE_S))
        self._look()
        self._listen()

    def _enter(self, _: None) -> Work:
        """In the fresh worker."""
        certificates = self._certificates
        privs.become(privs.role("qmailt"))
        return lambda record, descriptors: session.work(certificates, record, descriptors)

    def _look(self) -> None:
        """At the certificates, if that was not just done."""
        now_s = self._loop.now_s()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            if self._certificates.refresh():
                self._pool.retire_all()

    def look_anew(self) -> None:
        """SIGHUP."""
        self._look_at_s = 0.0
        self._look()

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except BlockingIOError:
            return  # it has gone again
        except OSError as error:
            self._complain(f"cannot take a connection: {error.strerror}")
            self._loop.unwatch(self._listener.fileno())
            self._loop.after(PAUSE_S, self._listen)
            return
        uid = door.uid(channel)
        if uid not in self._may_ask:
            self._complain(f"refused: uid {uid} ({privs.account(uid)}) may not ask")
            channel.close()
            return
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(next(iter(self._clients.values())))
        channel.setblocking(False)
        self._clients[channel.fileno()] = channel
        self._loop.watch(channel.fileno(), lambda: self._readable(channel))

    def _drop(self, channel: socket.socket, why: str = "") -> None:
        if why:
            self._complain(f"dropped a client, uid {door.uid(channel)}: {why}")
        if self._clients.pop(channel.fileno(), None) is not None:
            self._loop.unwatch(channel.fileno())
            channel.close()

    def _readable(self, channel: socket.socket) -> None:
        fd = channel.fileno()
        self._clients[fd] = self._clients.pop(fd)  # now the last to have been silent
        descriptors: list[int] = []
        try:
            record, descriptors = fds.recv_record(channel, QUESTION_MAX)
            if not record:
                self._drop(channel)
                return
            self._answer(channel, record, descriptors)
        except BlockingIOError:
            return
        except Malformed as error:
            self._drop(channel, str(error))
        except OSError:
            self._drop(channel)  # it has gone
        except Exception as error:  # a bug that one question meets must not take TLS from all others
            program.unforeseen(NAME, error)
            self._drop(channel, "for the bug above")
        finally:
            fds.close_all(descriptors)

    def _answer(self, channel: socket.socket, record: bytes, descriptors: list[int]) -> None:
        """Raises Malformed, OSError."""
        question = unpack_question(record)
        if len(descriptors) != (2 if isinstance(question, Serve) else 0):
            raise Malformed(f"{len(descriptors)} descriptors")
        self._look()
        if isinstance(question, AskReady):
            fds.send_record(channel, YES if self._certificates else NO)
            return
        if question.protocol not in PROTOCOLS:
            raise Malformed("not a protocol of ours")
        why = self._give(record, descriptors)
        if why:
            self._complain(f"a client goes without TLS: {why}")
            with socket.socket(fileno=os.dup(descriptors[1])) as stream:
                stream.send(frame(Sorry(said=False, why=why.encode())), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _give(self, record: bytes, descriptors: list[int]) -> str:
        """Why there is no session, or nothing."""
        if not self._certificates:
            return "there is no certificate (control/servercert.pem)"
        if not self._pool.room(None):
            return "all sessions (control/concurrencytls) are in use"
        try:
            self._pool.give(None, record, descriptors, _ended)
        except OSError as error:
            return f"cannot start a worker: {error.strerror}"
        return ""

    def close(self) -> None:
        """End: workers, then clients."""
        self._pool.close()
        for channel in self._clients.values():
            channel.close()


def _ended(report: bytes | None) -> None:
    """A session is over; who gave it knows by its stream."""
