"""Reports to senders: which are due, and the worker that puts them into the queue.

A report goes in by the queue's door like any mail.  That may take as long as the door is busy, so a worker does it,
not the loop.  Its ID is derived from the message's: when a crash makes us do it again, the queue says that it has it
already.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from qm.disk.control import Controls
from qm.errors import QmError
from qm.send import policy
from qm.send.chores import SLICE, Chore, Chores, Steps
from qm.send.logbook import Logbook
from qm.send.message import Clock, Message, Recipient
from qm.unix import entrance, log
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Trade, Work
from qm.wire import address, date, dsn, queueid
from qm.wire import envelope as wire_envelope
from qm.wire.dsn import Action, Told
from qm.wire.envelope import Envelope
from qm.wire.record import pack, unpack

NAME: Final = b"qm-send"
TRADE: Final = Trade(NAME, b"writes reports")
DOOR_S: Final = 120.0  # how long a report waits for the queue's door
LETTERS: Final = {Action.FAILED: b"b", Action.DELAYED: b"d", Action.DELIVERED: b"s", Action.RELAYED: b"s"}
PIECE: Final = 65536
_LIMITS: Final = Limits(workers=2, per_key=2, jobs_per_worker=100, idle_s=10.0)


class Due(NamedTuple):
    """A report that is due, and to whom."""

    action: Action  # of successes: DELIVERED, though some may have been relayed
    to: policy.BounceRoute
    recipients: list[Recipient]


def _told(message: Message, recipient: Recipient, action: Action, retry_until: bytes) -> Told:
    original = message.file.envelope.recipients[recipient.index]
    shown = original.address if b"@" in original.address else recipient.address
    last = recipient.last
    assert last is not None
    if action is Action.DELIVERED and not recipient.is_local:
        action = Action.RELAYED
    return Told(shown, action, last.text, last.status, last.mta, last.diagnostic, original.orcpt, retry_until)


def _those(message: Message, letter: bytes, wants: Callable[[wire_envelope.Recipient], bool]) -> list[Recipient]:
    wanted = message.file.envelope.recipients
    return [r for r in message.recipients if r.letter == letter and wants(wanted[r.index])]


class Bounces:
    """Queues what is due of a message's reports; *queued*(message, letters, ok) tells how it went."""

    def __init__(
        self,
        loop: Loop,
        controls: Controls,
        logbook: Logbook,
        chores: Chores,
        queued: Callable[[Message, bytes, bool], None],
        clock: Clock,
    ) -> None:
        self._controls = controls
        self._log = logbook
        self._chores = chores
        self._queued = queued
        self._clock = clock
        self._loop = loop
        self._pool: Pool[None] = Pool(loop, TRADE, _enter, _LIMITS)
        self._waiting: deque[_Job] = deque()
        self._composing = 0  # reports that are being written

    @property
    def busy(self) -> int:
        return self._pool.busy + len(self._waiting) + self._composing

    def close(self) -> None:
        self._pool.close()

    def _route(self, message: Message) -> policy.BounceRoute | None:
        double_to = self._controls.line("doublebounceto")
        if b"@" not in double_to:
            double_to += b"@" + self._controls.line("doublebouncehost")
        return policy.bounce_route(message.file.envelope.sender, double_to)

    def at_end(self, message: Message) -> list[Due]:
        """The reports that are due when all recipients are settled (RFC 3461 5.2, 6.2)."""
        failed = _those(message, b"D", policy.wants_failure)
        served = [r for r in _those(message, b"K", policy.wants_success) if r.last and not r.last.relayed]
        if not failed and not served:
            return []
        to = self._route(message)
        if to is None:
            if failed:
                self._log.triple_bounce(message.id)
            return []
        due = [Due(Action.FAILED, to, failed)] if failed else []
        if served and not to.double:
            due.append(Due(Action.DELIVERED, to, served))
        return due

    def delayed(self, message: Message) -> list[Due]:
        """The warning that is due for those who still wait; bounces are not warned of."""
        to = self._route(message)
        late = _those(message, b"Z", policy.wants_delay)
        return [Due(Action.DELAYED, to, late)] if late and to is not None and not to.double else []

    def start(self, message: Message, letter: bytes, dues: Sequence[Due]) -> None:
        """Queue *dues*, one after another; *letter* is what the state file will say of them."""
        self._next(message, letter, list(dues))

    def _next(self, message: Message, letter: bytes, dues: list[Due]) -> None:
        if dues:
            self._waiting.append(_Job(message, letter, dues[0], dues[1:]))
            self._go_on()
        else:
            self._queued(message, letter, True)

    def _go_on(self) -> None:
        """Write as many reports at once as there are workers."""
        while self._waiting and self._composing + self._pool.busy < _LIMITS.workers:
            self._composing += 1
            self._chores.begin(self._compose(self._waiting.popleft()))

    def _compose(self, job: "_Job") -> Chore:
        """Write a report but for the message itself, and give it to a worker."""
        text = -1
        try:
            text = os.memfd_create("report", os.MFD_CLOEXEC)
            report = yield from self._report(job.message, job.due)
            head_length = yield from _write(text, dsn.head(report))
            _write_all(text, dsn.tail(report))
            record = _record(job, head_length, whole=report.whole)
            self._pool.give(None, record, (text, job.message.fd), partial(self._ended, job))
        except OSError as error:
            self._log.alert(f"cannot start a bounce: {error.strerror}")
            self._queued(job.message, job.letter, False)
            self._loop.after(0.0, self._go_on)
        finally:
            self._composing -= 1
            if text >= 0:
                os.close(text)

    def _ended(self, job: "_Job", report: bytes | None) -> None:
        if report is not None and report[:1] == b"K":
            self._log.bounce(job.message.id, report[1:])
            self._next(job.message, job.letter, job.rest)
        else:
            self._log.warning(f"trouble injecting bounce of {job.message.id.decode()}, will try later")
            self._queued(job.message, job.letter, False)
        self._go_on()

    def _report(self, message: Message, due: Due) -> Steps[dsn.Report]:
        controls, envelope = self._controls, message.file.envelope
        until = b""
        if due.action is Action.DELAYED:
            until = date.rfc5322(message.born_s + controls.number("queuelifetime"))
        told = []
        for count, recipient in enumerate(due.recipients, 1):
            told.append(_told(message, recipient, due.action, until))
            if not count % SLICE:
                yield
        host = controls.line("bouncehost")
        most = controls.number("bouncemaxbytes")
        whole = due.action is Action.FAILED and envelope.ret.upper() != b"HDRS"  # RFC 3461 4.3
        return dsn.Report(
            host=host,
            sender=address.quote(controls.line("bouncefrom") + b"@" + host),
            to=address.quote(due.to.recipient),
            date=date.rfc5322(int(self._clock())),
            arrived=date.rfc5322(message.born_s),
            recipients=told,
            envid=envelope.envid,
            return_path=address.quote(envelope.sender),
            boundary=message.id + b"." + os.urandom(8).hex().encode(),
            double=due.to.double,
            smtputf8=envelope.smtputf8,
            whole=whole and (not most or message.file.message_length <= most),
        )


class _Job(NamedTuple):
    """A report that is to be queued."""

    message: Message
    letter: bytes
    due: Due
    rest: list[Due]  # of the same message


def _record(job: _Job, head_length: int, *, whole: bool) -> bytes:
    """For the worker; the text comes with it, and the queue file."""
    recipient = job.due.to.recipient
    return pack(
        queueid.report_of(job.message.id, LETTERS[job.due.action]),
        job.due.to.sender,
        recipient,
        b"" if recipient.isascii() else b"U",  # the To field is UTF-8 then
        b"%d" % head_length,
        b"%d" % job.message.file.message_length,
        b"w" if whole else b"h",
    )


def _write(fd: int, pieces: Iterable[bytes]) -> Steps[int]:
    """Write all *pieces*; how many bytes they were.  Raises OSError."""
    length = 0
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= PIECE:
            _write_all(fd, held)
            length += len(held)
            held.clear()
            yield
    _write_all(fd, held)
    return length + len(held)


def _write_all(fd: int, data: bytes | bytearray) -> None:
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _enter(key: None) -> Work:
    client = entrance.queue(dict(os.environb), timeout_s=DOOR_S)
    return lambda record, descriptors: _inject(client, record, descriptors)


def _inject(client: entrance.Queue, record: bytes, descriptors: Sequence[int]) -> bytes:
    """In the worker: put one report into the queue; K and its ID, or Z."""
    name, sender, recipient, smtputf8, head_length, length, extent = unpack(record, 7)
    text, source = descriptors
    split = int(head_length)
    envelope = Envelope(sender, (wire_envelope.Recipient(recipient),), smtputf8=bool(smtputf8), eight_bit=True)
    try:
        submission = client.begin(name=name)
        for piece in _pieces(text, 0, split):
            submission.write(piece)
        for piece in _message(source, int(length), whole=extent == b"w"):
            submission.write(piece)
        for piece in _pieces(text, split, os.fstat(text).st_size):
            submission.write(piece)
        return b"K" + submission.commit(envelope).name
    except QmError as error:
        log.warning(NAME, f"bounce {name.decode()}: {error}")
        return b"Z"


def _pieces(fd: int, start: int, end: int) -> Iterable[bytes]:
    while start < end:
        piece = os.pread(fd, min(PIECE, end - start), start)
        if not piece:
            return
        start += len(piece)
        yield piece


def _message(fd: int, length: int, *, whole: bool) -> Iterable[bytes]:
    """The message, or its header alone (at most PIECE bytes of it)."""
    if whole:
        return _pieces(fd, 0, length)
    start = os.pread(fd, min(PIECE, length), 0)
    return (start[: start.find(b"\n\n") + 1] if b"\n\n" in start else start,)
