"""The conversation with those who ask.

- Who may ask is decided by the uid that the kernel tells (SO_PEERCRED); others are dropped.
- A client is not read from while its password is being checked: it has one question in hand, and answers keep order.
- At the limit of clients the one that has been silent longest makes room; our client library then connects again.
- A question that makes no sense, descriptors, an answer that is not taken: the client is dropped, and the log says why.
"""

import socket
from typing import Final

from qm.disk.control import Controls
from qm.unix import door, fds, privs, program
from qm.unix.door import Complaints
from qm.unix.loop import Loop
from qm.userd.answers import NAME, Answers
from qm.wire.record import Malformed
from qm.wire.userquery import AskLogin, LoginAnswer, pack_login, unpack_question

PAUSE_S: Final = 1.0  # after a connection that could not be taken


class _Client:
    __slots__ = ("busy", "channel", "uid")

    def __init__(self, channel: socket.socket, uid: int) -> None:
        self.channel = channel
        self.uid = uid
        self.busy = False  # its question is being worked on


def _receive(channel: socket.socket) -> bytes:
    """One question, b"" when the client has gone; raises BlockingIOError, Malformed."""
    try:
        record, descriptors = fds.recv_record(channel)
    except ConnectionError:
        return b""
    fds.close_all(descriptors)
    if descriptors:
        raise Malformed("it sent descriptors")
    return record


class Server:
    """All clients of *listener*; only the uids in *may_ask* get answers."""

    def __init__(self, loop: Loop, listener: socket.socket, controls: Controls, may_ask: frozenset[int]) -> None:
        self._loop = loop
        self._listener = listener
        self._controls = controls
        self._may_ask = may_ask
        self._complain = Complaints(NAME).say
        self._answers = Answers(loop, controls, self._complain)
        self._clients: dict[int, _Client] = {}  # by descriptor, the longest silent first
        self._accepting = False
        self._listen()

    def _listen(self) -> None:
        if not self._accepting:
            self._accepting = True
            self._loop.watch(self._listener.fileno(), self._accept)

    def _pause(self) -> None:
        """Leave new connections in the kernel's queue for now."""
        self._accepting = False
        self._loop.unwatch(self._listener.fileno())

    def _accept(self) -> None:
        full = len(self._clients) >= max(1, self._controls.number("concurrencyuserd"))
        silent = next((client for client in self._clients.values() if not client.busy), None) if full else None
        if full and silent is None:
            self._pause()  # until one of them is answered
            return
        try:
            channel, _ = self._listener.accept()
        except BlockingIOError:
            return  # it has gone again
        except OSError as error:
            self._complain(f"cannot take a connection: {error.strerror}")
            self._pause()
            self._loop.after(PAUSE_S, self._listen)
            return
        uid = door.uid(channel)
        if uid not in self._may_ask:
            self._complain(f"refused: uid {uid} ({privs.account(uid)}) may not ask")
            channel.close()
            return
        if silent is not None:
            self._drop(silent)
        channel.setblocking(False)
        client = self._clients[channel.fileno()] = _Client(channel, uid)
        self._loop.watch(channel.fileno(), lambda: self._readable(client))

    def _drop(self, client: _Client, why: str = "") -> None:
        if why:
            self._complain(f"dropped a client, uid {client.uid}: {why}")
        fd = client.channel.fileno()
        if self._clients.pop(fd, None) is not None:
            self._loop.unwatch(fd)
            client.channel.close()
            self._listen()

    def _readable(self, client: _Client) -> None:
        fd = client.channel.fileno()
        self._clients[fd] = self._clients.pop(fd)  # now the last to have been silent
        try:
            record = _receive(client.channel)
            if record:
                self._ask(client, record)
            else:
                self._drop(client)
        except BlockingIOError:
            return
        except Malformed as error:
            self._drop(client, str(error))
        except Exception as error:  # a bug that one question meets must not take the answers from all others
            program.unforeseen(NAME, error)
            self._drop(client, "for the bug above")

    def _ask(self, client: _Client, record: bytes) -> None:
        question = unpack_question(record)
        if not isinstance(question, AskLogin):
            self._send(client, self._answers.answer(question))
            return
        client.busy = True
        answer = self._answers.login(question, lambda answer: self._answered(client, answer))
        if answer is not None:
            client.busy = False
            self._send(client, pack_login(answer))
        elif client.busy:
            self._loop.unwatch(client.channel.fileno())

    def _answered(self, client: _Client, answer: LoginAnswer) -> None:
        """The answer to a question that had to wait."""
        client.busy = False
        if client.channel.fileno() >= 0:
            self._loop.watch(client.channel.fileno(), lambda: self._readable(client))
            self._send(client, pack_login(answer))
            self._listen()

    def _send(self, client: _Client, record: bytes) -> None:
        try:
            fds.send_record(client.channel, record)
        except BlockingIOError:
            self._drop(client, "it does not take its answers")
        except OSError:
            self._drop(client)  # it has gone

    def forget(self) -> None:
        """Ask everything anew (SIGHUP)."""
        self._answers.forget()

    def close(self) -> None:
        """End: workers, then clients."""
        self._answers.close()
        for client in [*self._clients.values()]:
            client.channel.close()
