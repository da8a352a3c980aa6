"""A POP3 session after login: I/O, and the order of what happens to the mailbox.

Nothing is removed before QUIT: a connection that is lost, or idle for too long, leaves the mailbox as it was
(RFC 1939 3).
"""

import os
from collections.abc import Callable
from typing import Final

from qm.disk.maildrop import CHUNK, QUIT_STEPS, Gone, Maildrop
from qm.unix import channel as network
from qm.unix import log
from qm.wire.multiline import Multiline
from qm.wire.pop3 import Command, Signal, Transaction, Verb

NAME: Final = b"qm-pop3d"
READ_MAX: Final = 4096  # bytes of commands taken at once
FLUSH: Final = 65536  # bytes of replies that wait at most, but for a listing


class _CannotGoOn(Exception):
    """A message broke off in its middle: only closing tells the client."""


class Session:
    """One client and its mailbox; *lock* is the descriptor that locks it."""

    def __init__(self, channel: network.Channel, drop: Maildrop, lock: int) -> None:
        self._channel = channel
        self._drop = drop
        self._lock = lock
        self._server = Transaction(b"+OK %d messages" % len(drop))
        self._highest = 0  # LAST
        self._retrieved = 0
        self._sent_bytes = 0
        self._on: dict[Verb, Callable[[Command], None]] = {
            Verb.STAT: self._stat,
            Verb.LIST: self._list,
            Verb.UIDL: self._uidl,
            Verb.RETR: self._retr,
            Verb.TOP: self._retr,
            Verb.DELE: self._dele,
            Verb.RSET: self._rset,
            Verb.LAST: self._last,
            Verb.QUIT: self._quit,
        }

    def run(self) -> bytes:
        """Serve until the end; says how it ended."""
        try:
            return self._serve()
        except network.TimedOut:
            return b"timeout"  # RFC 1939 3: without a word, and without UPDATE
        except network.Gone:
            return b"gone"
        except _CannotGoOn:
            return b"broken"

    def _serve(self) -> bytes:
        server = self._server
        over = False
        while True:
            event = server.next_event()
            if isinstance(event, Command):
                over = over or event.verb is Verb.QUIT
                self._on[event.verb](event)
                continue
            self._flush()  # replies leave just before we would wait (RFC 2449 6.6)
            if event is Signal.EOF:
                return b"quit" if over else b"closed"
            server.receive(self._channel.read(READ_MAX))

    def _flush(self) -> None:
        replies = self._server.outgoing()
        if replies:
            self._sent_bytes += len(replies)
            self._channel.write(replies)

    def tally(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Messages retrieved, removed and left; bytes sent."""
        removed = self._drop.removed
        left = len(self._drop) - removed
        return b"%d" % self._retrieved, b"%d" % removed, b"%d" % left, b"%d" % self._sent_bytes

    def unlock(self) -> None:
        """Let the next session in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _number(self, command: Command) -> int:
        """The message that *command* is about; 0, and the answer is given, if there is none."""
        number = command.number or 0
        if number in self._drop:
            return number
        self._server.error(b"no such message")
        return 0

    def _stat(self, _: Command) -> None:
        numbers = self._drop.numbers()
        self._server.ok(b"%d %d" % (len(numbers), sum(map(self._drop.size, numbers))))

    def _list(self, command: Command) -> None:
        self._listing(command, lambda number: b"%d" % self._drop.size(number))

    def _uidl(self, command: Command) -> None:
        self._listing(command, self._drop.uidl)

    def _listing(self, command: Command, value: Callable[[int], bytes]) -> None:
        if command.number is None:
            self._server.lines(b"%d %b" % (number, value(number)) for number in self._drop.numbers())
        elif number := self._number(command):
            self._server.ok(b"%d %b" % (number, value(number)))

    def _retr(self, command: Command) -> None:
        number = self._number(command)
        if not number:
            return
        try:
            fd, size = self._drop.open(number)
        except Gone:
            self._server.error(b"another program has removed that message")
            return
        except OSError as error:
            log.warning(NAME, f"cannot open a message: {error.strerror}")
            self._server.error(b"[SYS/TEMP] that message cannot be read now")
            return
        try:
            self._server.ok()
            self._send(fd, size, Multiline(command.lines))
        finally:
            os.close(fd)
        self._retrieved += command.verb is Verb.RETR

    def _send(self, fd: int, left: int, text: Multiline) -> None:
        """The message on *fd*, *left* bytes of it, in bounded memory."""
        server = self._server
        while left > 0 and not text.done:
            try:
                chunk = os.read(fd, min(left, CHUNK))
            except OSError as error:
                log.alert(NAME, f"cannot read a message: {error.strerror}")
                raise _CannotGoOn from error
            if not chunk:
                break
            left -= len(chunk)
            server.send(text.feed(chunk))
            if server.queued_bytes > FLUSH:
                self._flush()
        server.send(text.end())

    def _dele(self, command: Command) -> None:
        if number := self._number(command):
            self._drop.delete(number)
            self._highest = max(self._highest, number)
            self._server.ok()

    def _rset(self, _: Command) -> None:
        self._drop.undelete_all()
        self._highest = 0
        self._server.ok()

    def _last(self, _: Command) -> None:
        self._server.ok(b"%d" % self._highest)

    def _quit(self, _: Command) -> None:
        """RFC 1939 6: the answer is the truth about the removals, and they last when it is +OK."""
        failed = self._drop.failed
        try:
            for step in QUIT_STEPS:
                step(self._drop)
        except OSError as error:
            failed.append(f"mailbox: {error.strerror}")
        self.unlock()  # before the answer: the client may come back at once
        if failed:
            log.alert(NAME, f"removals failed: {len(failed)}, the first: {failed[0]}")
            self._server.error(b"[SYS/TEMP] some deleted messages not removed")
        else:
            self._server.ok(b"goodbye")
