"""Reports to senders: which are due, and the worker that puts them into the queue.

A report goes in by the queue's door like any mail.  That may take as long as the door is busy, so a worker does it,
not the loop.  Its ID is derived from the message's: when a crash makes us do it again, the queue says that it has it
already.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from qm.disk.control import Controls
from qm.errors import QmError
from qm.send import policy
from qm.send.logbook import Logbook
from qm.send.message import Message, Recipient
from qm.unix import fds, log
from qm.unix.loop import Loop
from qm.unix.queueclient import QueueClient
from qm.unix.spawner import Limits, Pool, Work
from qm.wire import address, date, dsn, queueid
from qm.wire import envelope as wire_envelope
from qm.wire.dsn import Action, Told
from qm.wire.envelope import Envelope
from qm.wire.record import pack, unpack

NAME: Final = b"qm-send"
DOOR_S: Final = 120.0  # how long a report waits for the queue's door
LETTERS: Final = {Action.FAILED: b"b", Action.DELAYED: b"d", Action.DELIVERED: b"s", Action.RELAYED: b"s"}
PIECE: Final = 65536
_LIMITS: Final = Limits(workers=2, per_key=2, jobs_per_worker=100, idle_s=10.0)


class Due(NamedTuple):
    """A report that is due, and to whom."""

    action: Action
    to: policy.BounceRoute
    recipients: list[Told]


def _told(message: Message, recipient: Recipient, action: Action) -> Told:
    original = message.file.envelope.recipients[recipient.index]
    shown = original.address if b"@" in original.address else recipient.address
    last = recipient.last
    assert last is not None
    return Told(shown, action, last.text, last.status, last.mta, last.diagnostic, original.orcpt)


def _successes(message: Message) -> list[Told]:
    """RFC 3461 6.2, 5.2.2: delivered here, or passed on to a host that will not tell."""
    told = []
    for recipient in message.recipients:
        original = message.file.envelope.recipients[recipient.index]
        last = recipient.last
        if recipient.letter == b"K" and last and not last.relayed and policy.wants_success(original):
            told.append(_told(message, recipient, Action.DELIVERED if recipient.is_local else Action.RELAYED))
    return told


def _failures(message: Message) -> list[Told]:
    wanted = message.file.envelope.recipients
    failed = [r for r in message.recipients if r.letter == b"D" and policy.wants_failure(wanted[r.index])]
    return [_told(message, r, Action.FAILED) for r in failed]


class Bounces:
    """Queues what is due of a message's reports; *queued*(message, letters, ok) tells how it went."""

    def __init__(
        self, loop: Loop, controls: Controls, logbook: Logbook, queued: Callable[[Message, bytes, bool], None]
    ) -> None:
        self._controls = controls
        self._log = logbook
        self._queued = queued
        self._pool: Pool[None] = Pool(loop, NAME, _enter, _LIMITS)
        self._waiting: list[tuple[Message, bytes, Due]] = []

    @property
    def busy(self) -> int:
        return self._pool.busy + len(self._waiting)

    def close(self) -> None:
        self._pool.close()

    def _route(self, message: Message) -> policy.BounceRoute | None:
        double_to = self._controls.line("doublebounceto")
        if b"@" not in double_to:
            double_to += b"@" + self._controls.line("doublebouncehost")
        return policy.bounce_route(message.file.envelope.sender, double_to)

    def at_end(self, message: Message) -> list[Due]:
        """The reports that are due when all recipients are settled."""
        failures = _failures(message)
        successes = _successes(message)
        if not failures and not successes:
            return []
        to = self._route(message)
        if to is None:
            self._log.triple_bounce(message.id)
            return []
        due = [Due(Action.FAILED, to, failures)] if failures else []
        if successes and not to.double:
            due.append(Due(successes[0].action, to, successes))
        return due

    def delayed(self, message: Message) -> list[Due]:
        """The warning that is due for those who still wait; bounces are not warned of."""
        to = self._route(message)
        wanted = message.file.envelope.recipients
        late = [r for r in message.recipients if r.letter == b"Z" and policy.wants_delay(wanted[r.index])]
        if to is None or to.double or not late:
            return []
        until = date.rfc5322(message.born_s + self._controls.number("queuelifetime"))
        told = [_told(message, r, Action.DELAYED)._replace(retry_until=until) for r in late]
        return [Due(Action.DELAYED, to, told)]

    def start(self, message: Message, letter: bytes, dues: Sequence[Due]) -> None:
        """Queue *dues*, one after another; *letter* is what the state file will say of them."""
        self._next(message, letter, list(dues))

    def _next(self, message: Message, letter: bytes, dues: list[Due]) -> None:
        if not dues:
            self._queued(message, letter, True)
            return
        due = dues.pop(0)
        record, descriptors = self._job(message, due)
        try:
            self._pool.give(None, record, descriptors, lambda report: self._ended(message, letter, dues, report))
        except OSError as error:
            self._log.alert(f"cannot start a bounce: {error.strerror}")
            self._queued(message, letter, False)
        finally:
            fds.close_all(descriptors)

    def _ended(self, message: Message, letter: bytes, dues: list[Due], report: bytes | None) -> None:
        if report is None or report[:1] != b"K":
            self._log.warning(f"trouble injecting bounce of {message.id.decode()}, will try later")
            self._queued(message, letter, False)
            return
        self._log.bounce(message.id, report[1:])
        self._next(message, letter, dues)

    def _job(self, message: Message, due: Due) -> tuple[bytes, list[int]]:
        """A record and two descriptors: the text before and after, and the queue file."""
        report = self._report(message, due)
        head, tail = dsn.head(report), dsn.tail(report)
        text = os.memfd_create("report", os.MFD_CLOEXEC)
        try:
            written = os.write(text, head + tail)
            if written != len(head) + len(tail):
                raise OSError(28, os.strerror(28))
            source = fcntl.fcntl(message.fd, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            os.close(text)
            raise
        smtputf8 = b"U" if any(not told.address.isascii() for told in due.recipients) else b""
        record = pack(
            queueid.report_of(message.id, LETTERS[due.action]), due.to.sender, due.to.recipient, smtputf8,
            b"%d" % len(head), b"%d" % message.file.message_length, b"w" if report.whole else b"h",
        )  # fmt: skip
        return record, [text, source]

    def _report(self, message: Message, due: Due) -> dsn.Report:
        controls, envelope = self._controls, message.file.envelope
        host = controls.line("bouncehost")
        most = controls.number("bouncemaxbytes")
        whole = due.action is Action.FAILED and envelope.ret.upper() != b"HDRS"
        return dsn.Report(
            host=host,
            sender=address.quote(controls.line("bouncefrom") + b"@" + host),
            to=address.quote(due.to.recipient),
            date=date.rfc5322(int(time.time())),
            arrived=date.rfc5322(message.born_s),
            recipients=due.recipients,
            envid=envelope.envid,
            return_path=address.quote(envelope.sender),
            boundary=message.id + b"." + os.urandom(8).hex().encode(),
            double=due.to.double,
            eight_bit=envelope.eight_bit or envelope.smtputf8 or not _is_ascii(due.recipients),
            whole=whole and (not most or message.file.message_length <= most),
        )


def _is_ascii(recipients: Iterable[Told]) -> bool:
    return all((told.address + told.text).isascii() for told in recipients)


def _enter(key: None) -> Work:
    client = QueueClient(timeout_s=DOOR_S)
    return lambda record, descriptors: _inject(client, record, descriptors)


def _inject(client: QueueClient, record: bytes, descriptors: Sequence[int]) -> bytes:
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
