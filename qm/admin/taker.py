"""The queue owner's part of an import: reading another system's messages from descriptors, and queueing them.

A message is written by the same steps as any other (qm.disk.accept), under an ID that is made of its birth and its
name over there, and waits in queue/import until root has written the ID down (qm.disk.staged).
"""

import os
import socket
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from qm.disk import held
from qm.disk.accept import Draft, NotQueued, Store, accept
from qm.disk.staged import Stage, is_queued
from qm.unix import fds
from qm.wire import date, postfixpost, postfixqueue, qmailqueue, queueid
from qm.wire.envelope import ADDRESS_MAX, Envelope
from qm.wire.record import Malformed, pack, unpack
from qm.wire.route import Rules

_CHUNK: Final = 262144  # bytes
_RECORDS_MAX: Final = 64 * 1024 * 1024  # bytes of one of qmail's envelope files
RELEASE: Final = b"release"  # a question beside the kinds of messages: let an ID go
_PID_MASK: Final = (1 << 25) - 1


class _Mail(NamedTuple):
    envelope: Envelope
    done: int
    born_ns: int
    message: Iterator[bytes]
    note: bytes = b""  # for the report


def _whole(fd: int) -> bytes:
    text = os.pread(fd, _RECORDS_MAX + 1, 0)
    if len(text) > _RECORDS_MAX:
        raise Malformed("an envelope is too large")
    return text


def _pieces(fd: int) -> Iterator[bytes]:
    position = 0
    while piece := os.pread(fd, _CHUNK, position):
        position += len(piece)
        yield piece


def _postfix(descriptors: list[int], rules: Rules, name: bytes) -> _Mail:
    """Of the queue file, and of the file in bounce/, if there is one."""
    fd, *bounces = descriptors

    def read_at(offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    untold = [offset for bounce in bounces for offset in postfixqueue.bounced(_whole(bounce))]
    mail = postfixqueue.read(read_at, untold)
    note = b"; %d failed, and the sender does not know: they are tried again" % mail.failed if mail.failed else b""
    return _Mail(mail.envelope, mail.done, mail.arrived_ns, postfixqueue.message(read_at), note)


def _postfix_hold(descriptors: list[int], rules: Rules, name: bytes) -> _Mail:
    mail = _postfix(descriptors, rules, name)
    held_here = mail.envelope._replace(held=held.IMPORTED)
    return mail._replace(envelope=held_here, note=mail.note + b"; on hold there, and held here: see qm hold")


def _postfix_maildrop(descriptors: list[int], rules: Rules, name: bytes) -> _Mail:
    """Local mail that Postfix has not looked at."""
    mail, origin = _postfix(descriptors, rules, name), rules.envnoathost
    sender = postfixpost.qualified(mail.envelope.sender, origin)
    recipients = tuple(
        who._replace(address=postfixpost.qualified(who.address, origin)) for who in mail.envelope.recipients
    )
    born_s = mail.born_ns // 1_000_000_000
    return mail._replace(
        envelope=mail.envelope._replace(sender=sender, recipients=recipients),
        message=postfixpost.completed(mail.message, sender, name, origin, born_s),
    )


def _qmail(descriptors: list[int], rules: Rules, name: bytes) -> _Mail:
    mess, info, *channels = descriptors
    local, remote = (qmailqueue.channel(_whole(fd)) for fd in channels)
    waiting = [qmailqueue.without_prefix(rules, address) for address in local[0]] + remote[0]
    records = b"F" + qmailqueue.sender(_whole(info)) + b"\0" + b"".join([b"T%b\0" % address for address in waiting])
    mail = qmailqueue.todo(records)
    envelope = Envelope(mail.sender, mail.recipients)
    return _Mail(envelope, local[1] + remote[1], os.fstat(info).st_mtime_ns, _pieces(mess))


def _qmail_todo(descriptors: list[int], rules: Rules, name: bytes) -> _Mail:
    mess, todo = descriptors
    mail = qmailqueue.todo(_whole(todo))
    return _Mail(Envelope(mail.sender, mail.recipients), 0, os.fstat(todo).st_mtime_ns, _pieces(mess))


_READERS: Final[dict[bytes, Callable[[list[int], Rules, bytes], _Mail]]] = {
    b"postfix": _postfix,
    b"postfix-hold": _postfix_hold,
    b"postfix-maildrop": _postfix_maildrop,
    b"qmail": _qmail,
    b"qmail-todo": _qmail_todo,
}


def _identity(kind: bytes, name: bytes, born_ns: int) -> bytes:
    """The ID: the birth over there, and a sum of what the message was called."""
    kind = b"postfix" if kind == b"postfix-hold" else kind  # who holds it, or lets it go, makes no other of it
    return queueid.make(born_ns, zlib.crc32(kind + b" " + name) & _PID_MASK)


def _checked(mail: _Mail) -> Envelope:
    addresses = [mail.envelope.sender, *(recipient.address for recipient in mail.envelope.recipients)]
    if any(byte in address for byte in b"\r\n\0" for address in addresses):
        raise Malformed("an address has a line end in it")
    if any(len(address) > ADDRESS_MAX for address in addresses):
        raise Malformed("an address is too long")
    return mail.envelope


class Taker:
    """The child: the queue's owner, who sees descriptors and no names of files."""

    def __init__(self, rules: Rules, known: Collection[bytes], *, dry_run: bool) -> None:
        """*known* are the IDs of what has been taken before."""
        self._rules = rules
        self._known = known
        self._store = None if dry_run else Store()
        self._stage = None if dry_run else Stage()

    def take(self, kind: bytes, name: bytes, descriptors: list[int]) -> tuple[bytes, bytes, bytes]:
        """Letter, text and ID: K is staged (or would be), A is queued already, P was before, N nobody waits, Z no."""
        try:
            mail = _READERS[kind](descriptors, self._rules, name)
            envelope = _checked(mail)
            message_id = _identity(kind, name, mail.born_ns)
            if message_id in self._known:
                return b"P", b"imported before", message_id
            if not envelope.recipients:
                return b"N", b"nobody waits for it", message_id
            text = b"%d recipients, %d have it%b" % (len(envelope.recipients), mail.done, mail.note)
            if is_queued(message_id):
                return b"A", text, message_id
            if self._store is not None and self._stage is not None:
                accept(self._store, self._draft(mail, kind, name, message_id), self._stage.steps)
            return b"K", text, message_id
        except (Malformed, ValueError) as error:
            return b"Z", os.fsencode(str(error)), b""
        except (OSError, NotQueued) as error:
            return b"Z", os.fsencode(f"cannot be read or queued: {error}"), b""

    @staticmethod
    def _draft(mail: _Mail, kind: bytes, name: bytes, message_id: bytes) -> Draft:
        """It keeps its age, unless that is in the future: queuelifetime counts on."""
        received, born_ns = _received(kind, name), min(mail.born_ns, time.time_ns())
        return Draft(received, mail.message, lambda: mail.envelope, os.getuid(), os.getpid(), message_id, born_ns)

    def _release(self, message_id: bytes) -> tuple[bytes, bytes, bytes]:
        """Let a message go; without an ID, what an earlier run has left, and how many messages that were."""
        assert self._stage is not None, "a dry run has taken nothing"
        try:
            if not message_id:
                return b"K", b"%d" % self._stage.settle(self._known), b""
            self._stage.release(message_id)
            return b"K", b"", message_id
        except OSError as error:
            return b"Z", os.fsencode(f"cannot be let go: {error}"), message_id

    def _answer(self, kind: bytes, name: bytes, descriptors: list[int]) -> tuple[bytes, bytes, bytes]:
        return self._release(name) if kind == RELEASE else self.take(kind, name, descriptors)

    def serve(self, channel: socket.socket) -> None:
        while True:
            record, descriptors = fds.recv_record(channel)
            if not record:
                return
            try:
                kind, name = unpack(record, 2)
                answer = self._answer(kind, name, descriptors)
                fds.send_record(channel, pack(*(field.replace(b"\0", b"?") for field in answer)))
            finally:
                fds.close_all(descriptors)


def _received(kind: bytes, name: bytes) -> Callable[[bytes, int], bytes]:
    system = b"qmail" if kind.startswith(b"qmail") else b"Postfix"

    def received(message_id: bytes, born_ns: int) -> bytes:
        when = date.rfc5322(born_ns // 1_000_000_000)
        return b"Received: (qm import from %b, there %b)\n  id %b; %b\n" % (system, name, message_id, when)

    return received
