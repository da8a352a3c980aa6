"""The other ends of an smtpd session, in memory: a peer that follows a script, a queue and a userd that can fail."""

from collections.abc import Collection, Iterable, Mapping
from typing import overload

from qm.errors import QmError, Temporary
from qm.smtpd.client import Means
from qm.smtpd.rules import Rules, peer
from qm.smtpd.session import Session
from qm.smtpd.submission import Submission
from qm.unix.channel import Gone
from qm.unix.queueclient import Accepted, Trace
from qm.wire.envelope import Envelope
from qm.wire.qualify import Hosts, host_tokens
from qm.wire.secured import Secured
from qm.wire.smtplimits import Limits
from qm.wire.userquery import (
    AskLogin,
    AskScram,
    Exists,
    Later,
    Login,
    LoginAnswer,
    Refused,
    ScramAnswer,
    Spent,
    Verdict,
)

RULES = Rules(
    me=b"mx.example",
    greeting=b"mx.example",
    localiphost=b"local.example",
    rcpthosts=frozenset((b"b.example", b".sub.example")),
    badmailfrom=frozenset((b"bad@x.example", b"@bad.example")),
    databytes=1000,
    maxhops=3,
    maxrecipients=4,
    limits=Limits(),
    command_s=300,
    data_s=180,
)
ALONE = Means()
ENV = {b"TCPREMOTEIP": b"192.0.2.1", b"TCPREMOTEHOST": b"client.example", b"TCPLOCALIP": b"192.0.2.25"}


class Peer:
    """Sends each of *pieces* when it is waited for, then what *last* is: the end, or an exception."""

    def __init__(self, pieces: Iterable[bytes], last: bytes | Gone = b"", gone_after: int | None = None) -> None:
        self._pieces = iter(pieces)
        self._last = last
        self._gone_after = gone_after  # writes that it takes
        self.writes: list[bytes] = []
        self.timeouts_s: list[float] = []
        self.waits_s: list[float] = []

    @property
    def heard(self) -> bytes:
        return b"".join(self.writes)

    def set_timeout(self, timeout_s: float) -> None:
        self.timeouts_s.append(timeout_s)

    def read(self, most: int = 65536) -> bytes:
        piece = next(self._pieces, self._last)
        if isinstance(piece, Gone):
            raise piece
        assert len(piece) <= most
        return piece

    def linger(self, delay_s: float) -> None:
        self.waits_s.append(delay_s)

    def write(self, data: bytes) -> None:
        if self._gone_after is not None and len(self.writes) >= self._gone_after:
            raise Gone("broken pipe")
        self.writes.append(data)


class Queue:
    """Keeps what is committed; raises *unreachable* at once, *full* at a write, *refusal* at the end."""

    def __init__(
        self,
        unreachable: QmError | None = None,
        full: QmError | None = None,
        refusal: Exception | None = None,
    ) -> None:
        self.unreachable = unreachable
        self.full = full
        self.refusal = refusal
        self.queued: list[tuple[Trace, Envelope, bytes]] = []
        self.open: set[Message] = set()
        self.largest_piece = 0

    def ensure(self) -> None:
        if self.unreachable is not None:
            raise self.unreachable

    def begin(self, trace: Trace) -> "Message":
        message = Message(self, trace)
        self.open.add(message)
        return message


class Message:
    def __init__(self, queue: Queue, trace: Trace) -> None:
        self._queue = queue
        self._trace = trace
        self._text: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        assert self in self._queue.open
        if self._queue.full is not None:
            raise self._queue.full
        self._queue.largest_piece = max(self._queue.largest_piece, len(chunk))
        self._text.append(chunk)

    def commit(self, envelope: Envelope) -> Accepted:
        self._queue.open.remove(self)
        if self._queue.refusal is not None:
            raise self._queue.refusal
        self._queue.queued.append((self._trace, envelope, b"".join(self._text)))
        return Accepted(b"0123456789abcdefgh")

    def abort(self) -> None:
        self._queue.open.remove(self)


class Users:
    """Knows everybody but those of *answers*."""

    def __init__(self, answers: Mapping[bytes, tuple[bytes, bytes] | QmError] | None = None) -> None:
        self._answers = answers or {}
        self.asked: list[bytes] = []

    def exists(self, address: bytes) -> tuple[bytes, bytes]:
        self.asked.append(address)
        answer = self._answers.get(address, (b"yes", b""))
        if isinstance(answer, QmError):
            raise answer
        return answer


class Store:
    """A userd that knows ann, whose password is "secret" and whose address is ann@b.example."""

    def __init__(self, *names: bytes, trouble: QmError | None = None, limit: int = 1000) -> None:
        self._names = names or (b"PLAIN", b"LOGIN")
        self.trouble = trouble
        self.left = limit  # messages that she may send
        self.told = False
        self.looked = 0  # how often it was asked for mechanisms
        self.asked: list[AskLogin | AskScram] = []
        self.spent: list[tuple[int, set[bytes]]] = []

    def mechanisms(self) -> tuple[bytes, ...]:
        self.looked += 1
        return self._names

    @overload
    def answer(self, question: AskLogin) -> LoginAnswer: ...

    @overload
    def answer(self, question: AskScram) -> ScramAnswer: ...

    def answer(self, question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
        self.asked.append(question)
        if self.trouble is not None:
            raise self.trouble
        if isinstance(question, AskScram):
            return Later(b"no")
        if (question.name, question.secret) == (b"ann", b"secret"):
            return Login(b"ann", 1000, 1000, b"/home/ann", b"/bin/sh", b"ann")
        return Refused(b"wrong name or password", 3)

    def sender(self, login: Login, address: bytes) -> Exists:
        if self.trouble is not None:
            raise self.trouble
        return Exists(Verdict.YES if address.lower() == b"ann@b.example" else Verdict.NO, b"")

    def spend(self, login: Login, recipients: int, domains: Collection[bytes]) -> Spent:
        self.spent.append((recipients, set(domains)))
        self.left -= 1
        if self.left >= 0:
            return Spent(Verdict.YES, b"")
        first, self.told = not self.told, True
        return Spent(Verdict.LATER, b"limitmessages", first)


class Tls:
    """TLS without TLS: after 220 the session goes on with *under*, or *trouble* comes of it."""

    def __init__(self, under: Peer | None = None, trouble: Temporary | Gone | None = None, ready: bool = True) -> None:
        self._under = under
        self._trouble = trouble
        self._ready = ready
        self.asked = 0

    def ready(self) -> bool:
        return self._ready

    def start(self, timeout_s: float) -> tuple[Peer, Secured]:
        self.asked += 1
        if self._trouble is not None:
            raise self._trouble
        assert self._under is not None
        return self._under, Secured(b"TLSv1.3", b"TLS_AES_256_GCM_SHA384", b"mx.example")


HOSTS = Hosts(*(host_tokens(name) for name in (b"example", b"b.example", b"plus.example")), b"id.example")


def submission(store: Store) -> Means:
    """What a session of our users has."""
    return Means(None, store, Submission(HOSTS, store, b"mx.example"))


def talk(
    other: Peer,
    queue: Queue | None = None,
    users: Users | None = None,
    rules: Rules = RULES,
    env: Mapping[bytes, bytes] = ENV,
    more: frozenset[bytes] = frozenset(),
    means: Means = ALONE,
) -> int:
    """One session; gives its exit code."""
    queue = Queue() if queue is None else queue
    whom = peer(env, auth=means.store is not None)
    session = Session(other, rules, whom, more.__contains__, queue, users or Users(), means=means)  # type: ignore[arg-type]
    try:
        return session.run()
    finally:
        assert not queue.open, "a message is neither queued nor thrown away"


def codes(heard: bytes) -> list[int]:
    """The code of each reply."""
    lines = heard.split(b"\r\n")
    assert lines.pop() == b""
    return [int(line[:3]) for line in lines if line[3:4] == b" "]
