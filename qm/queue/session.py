"""One connection of the queue's door: the client's messages, one after another, into the queue.

A client that has nothing to say for TICK_S, or that has said something while others wait, goes back to the doorman: an
open connection costs a worker only while it is used.  When the service is told to stop it leaves without a loss: the
kernel refuses the client's next datagram, which it may then send on another connection, and one that came just before
is still served.
"""

import socket
import struct
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.disk import held, queue
from qm.disk.accept import Draft, NotQueued, accept
from qm.disk.control import BadControl, Controls
from qm.queue import policy
from qm.queue.shop import Shop
from qm.unix import log
from qm.wire import door, queuecode
from qm.wire import envelope as wire_envelope
from qm.wire.envelope import AddressTooLong, Envelope
from qm.wire.record import Malformed

NAME: Final = b"qm-queued"
TICK_S: Final = 0.5
DEATH_S: Final = 86400.0  # of one message, from its first datagram; below STALE_S of the sweep
_NOTHING: Final = -1
_GO: Final = door.Answer(queuecode.QUEUED, b"")


class Client(NamedTuple):
    uid: int
    pid: int
    timeout_s: float  # between two datagrams of a message


class Session:
    def __init__(self, shop: Shop, channel: socket.socket, client: Client) -> None:
        self._shop = shop
        self._channel = channel
        self._client = client
        self._in_stream = False  # a message has begun, and not all of it has come
        self._committed = b""  # the envelope of a streamed message, once it is there
        self._leaving = False
        tick_s = min(TICK_S, client.timeout_s)
        self._ticks = max(1, round(client.timeout_s / tick_s))
        wait = struct.pack("@ll", int(tick_s), int(tick_s % 1 * 1e6))
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)

    def serve(self) -> bool:
        """Until the client closes, rests or breaks the rules, or we are told to stop; whether it rests."""
        self._shop.leave = self._leave
        try:
            if self._shop.stopping:
                self._leave()
            while (count := self._tick()) > 0 and self._message(count):
                if self._shop.is_crowded() and not self._leaving:
                    return True
            if count == _NOTHING and not self._leaving:
                return True
            self._leave()
            while self._tick() > 0:
                pass  # a close with datagrams unread would take our answer from the client
            return False
        finally:
            self._shop.leave = None

    def _tick(self) -> int:
        """The length of the datagram that has come; 0 if the client has gone, _NOTHING after TICK_S."""
        try:
            return self._channel.recv_into(self._shop.buffer)
        except BlockingIOError:
            return _NOTHING
        except ConnectionResetError:
            return 0

    def _leave(self) -> None:
        """Let no more in; what is in already comes out of the next waits, and then the end."""
        if not self._leaving:
            self._leaving = True
            self._channel.shutdown(socket.SHUT_RD)

    def _next(self, death_s: float) -> memoryview:
        """Wait for a message's next datagram."""
        ticks = 0
        while (count := self._tick()) == _NOTHING:
            ticks += 1
            if ticks >= self._ticks:
                raise NotQueued(queuecode.TIMEOUT)
        if not count:
            raise NotQueued(queuecode.UNREACHABLE if self._leaving else queuecode.READ)
        if time.monotonic() > death_s:
            raise NotQueued(queuecode.TIMEOUT)
        return self._datagram(count)

    def _datagram(self, count: int) -> memoryview:
        if count > door.DATAGRAM_MAX:
            raise Malformed("datagram too large")
        return self._shop.buffer[:count]

    def _message(self, count: int) -> bool:
        """Take in the message that begins with the datagram in the buffer; whether the connection may go on."""
        try:
            first = door.parse_first(self._datagram(count))
            if isinstance(first, door.Begin) and self._leaving:
                return False  # not answered: the client begins anew elsewhere
            self._in_stream = isinstance(first, door.Begin)
            accepted = accept(self._shop.store(), self._draft(first))
        except NotQueued as error:
            return self._failed(error) and not self._in_stream
        except Malformed as error:
            log.warning(NAME, f"uid {self._client.uid} pid {self._client.pid}: {error}")
            code = queuecode.TOO_LONG if isinstance(error, AddressTooLong) else queuecode.FORMAT
            self._answer(door.failed(code))
            return False
        except MemoryError:
            self._answer(door.failed(queuecode.MEMORY))
            return False
        return self._answer(door.Answer(queuecode.QUEUED, accepted.name, accepted.already))

    def _failed(self, error: NotQueued) -> bool:
        if error.detail:
            log.alert(NAME, f"cannot queue {error.detail}")
            self._shop.reopen()
        return self._answer(door.failed(error.code))

    def _answer(self, answer: door.Answer) -> bool:
        """Whether the client can take it, now: whoever lets answers pile up is not waited for."""
        try:
            self._channel.send(door.answer(answer), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _draft(self, first: door.Begin | door.Whole) -> Draft:
        """The message that *first* is, or begins."""
        rules, (uid, pid, _) = self._shop.rules, self._client
        start = first.begin if isinstance(first, door.Whole) else first
        if not policy.may_begin(rules, uid, start):
            raise Malformed("may not say which ID a message shall have")

        def received(name: bytes, born_ns: int) -> bytes:
            return policy.received(rules, uid, start, name, self._shop.date(born_ns // 1_000_000_000))

        if isinstance(first, door.Whole):
            envelope = self._envelope(first.envelope)
            return Draft(received, (first.message,), lambda: envelope, uid, pid, start.name)
        self._answer(_GO)
        return Draft(received, self._pieces(), lambda: self._envelope(self._committed), uid, pid, start.name)

    def _envelope(self, text: bytes) -> Envelope:
        envelope = policy.honest(self._shop.rules, self._client.uid, wire_envelope.decode(text))
        if envelope.held:
            self._check_held(envelope.login)
        return envelope

    @staticmethod
    def _check_held(login: bytes) -> None:
        """Whether one more message of *login* may be held; two that come at once may both find room for one."""
        try:
            if held.is_full(login, Controls(("limitheld",)).number("limitheld")):
                raise NotQueued(queuecode.HELD)
        except BadControl as error:
            raise NotQueued(queuecode.HOME, error.detail) from error
        except OSError as error:
            raise NotQueued(queuecode.QUEUE, f"{queue.HELD}: {error.strerror}") from error

    def _pieces(self) -> Iterator[memoryview]:
        """The streamed message; afterwards its envelope has come, too."""
        death_s = time.monotonic() + DEATH_S
        stream = door.Stream()
        event = stream.take(self._next(death_s))
        while not isinstance(event, door.Commit):
            if isinstance(event, door.Message):
                yield event.piece
            event = stream.take(self._next(death_s))
        self._committed = event.envelope
        self._in_stream = False
