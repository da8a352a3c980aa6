"""qm-qmtpd's session against a reference that takes its input apart as qmail.md 16.7 says, whatever comes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm import qmtpd
from qm.unix.handover import Peer
from qm.unix.queueclient import NO_TRACE, Accepted, Trace
from qm.wire.envelope import Envelope
from qm.wire.record import Malformed

HOSTS = frozenset((b"ours.example", b".wide.example"))
NUMBER = re.compile(rb"([0-9]{1,10}):")


class Wire:
    """What comes, in pieces of *size* bytes; what is answered."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = [data[at : at + size] for at in range(0, len(data), size)]
        self.out = b""

    def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, data: bytes) -> None:
        self.out += data


class Queue:
    """Keeps what is committed."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, bytes, list[bytes]]] = []
        self._text = b""

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ensure(self) -> None:
        pass

    def begin(self, trace: Trace = NO_TRACE, name: bytes = b"") -> "Queue":
        self._text = b""
        return self

    def write(self, chunk: bytes | memoryview) -> None:
        self._text += chunk

    def commit(self, envelope: Envelope) -> Accepted:
        self.taken.append((self._text, envelope.sender, [one.address for one in envelope.recipients]))
        return Accepted(b"ID")

    def abort(self) -> None:
        self._text = b""


class Broken(Exception):
    """Not QMTP."""


def _netstring(data: bytes) -> tuple[bytes, bytes]:
    """The first one of *data*, and the rest."""
    found = NUMBER.match(data)
    if found is None or int(found[1]) > 200_000_000:
        raise Broken
    start, end = found.end(), found.end() + int(found[1])
    if data[end : end + 1] != b",":
        raise Broken
    return data[start:end], data[end + 1 :]


def _one(data: bytes, relay: bytes | None) -> tuple[bytes, tuple[bytes, bytes, list[bytes]], bytes]:
    """The answers' letters, what is queued, and the rest."""
    message, data = _netstring(data)
    if message[:1] not in (b"\n", b"\r") or not message:
        raise Broken
    text = message[1:].replace(b"\r\n", b"\n") if message[:1] == b"\r" else message[1:]
    sender, data = _netstring(data)
    listed, data = _netstring(data)
    letters, good = b"", []
    while listed:
        address, listed = _netstring(listed)
        ours = re.fullmatch(rb"[^\0]*@(ours\.example|[^@\0]*\.wide\.example)", address, re.DOTALL | re.IGNORECASE)
        allowed = bool(ours) or (relay is not None and address and b"\0" not in address)
        allowed = allowed or (bool(address) and b"@" not in address and b"\0" not in address)
        address += relay or b""
        bad_sender = len(sender) > 1000 or b"\0" in sender
        letters += b"K" if allowed and not bad_sender and len(address) <= 1000 else b"D"
        if letters[-1:] == b"K":
            good.append(address)
    return letters, (text, sender, good), data


def _reference(data: bytes, relay: bytes | None) -> tuple[bytes, list[tuple[bytes, bytes, list[bytes]]], bool]:
    letters, queued = b"", []
    while data:
        try:
            more, mail, data = _one(data, relay)
        except Broken:
            return letters, queued, False
        letters += more
        if mail[2]:
            queued.append(mail)
    return letters, queued, True


def _run(data: bytes, size: int, relay: bytes | None, **limits: int) -> tuple[Wire, Queue, bool]:
    wire, queue = Wire(data, size), Queue()
    rules = qmtpd.Rules(HOSTS, lambda key: False, relay, limits.get("databytes", 0), None)
    session = qmtpd._Session(Peer(wire, {}, b"me.example", b"QMTP"), rules, queue)  # type: ignore[arg-type]
    try:
        session.run()
    except Malformed:
        return wire, queue, False
    return wire, queue, True


def _letters(out: bytes) -> bytes:
    letters = b""
    while out:
        answer, out = _netstring(out)
        letters += answer[:1]
    return letters


def _encoded(text: bytes) -> bytes:
    return b"%d:%b," % (len(text), text)


ADDRESS = st.one_of(
    st.sampled_from([b"a@ours.example", b"b@OURS.example", b"c@x.wide.example", b"d@wide.example", b"Postmaster", b""]),
    st.sampled_from(
        [b"e@far.example", b"f", b"h@far.example@", b"g\0@ours.example", b"x" * 988 + b"@ours.example", b"y" * 1001]
    ),
    st.binary(max_size=20),
)
TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"ab", b".", b"\0", b"\xff"])).map(b"".join)
MAIL = st.builds(
    lambda first, text, sender, recipients: (
        _encoded(first + text) + _encoded(sender) + _encoded(b"".join(map(_encoded, recipients)))
    ),
    st.sampled_from([b"\n", b"\r"]),
    TEXT,
    ADDRESS,
    st.lists(ADDRESS, max_size=5),
)


@st.composite
def _conversations(draw: st.DrawFn) -> bytes:
    """Some messages, perhaps with a change that breaks them."""
    data = b"".join(draw(st.lists(MAIL, max_size=3)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 2)) :]
    return data


@given(_conversations(), st.sampled_from([1, 2, 7, 65536]), st.sampled_from([None, b"", b".relay"]))
def test_as_the_reference(data: bytes, size: int, relay: bytes | None) -> None:
    """Answers, what is queued, and whether it is QMTP: as the reference says, in pieces of any size."""
    wire, queue, good = _run(data, size, relay)
    assert (_letters(wire.out), queue.taken, good) == _reference(data, relay)


@pytest.mark.parametrize(
    "data",
    [b":", b"x", b"00000000001:", b"200000001:", b"99999999999999999999:", b"-1:", b"1 :", b"0:,", b"1:\nx", b"3:abc,"],
)
def test_no_qmtp(data: bytes) -> None:
    """What is no netstring, too long, or no message ends the session, with nothing queued."""
    wire, queue, good = _run(data, 65536, None)
    assert (wire.out, queue.taken, good) == (b"", [], False)


def _mail(text: bytes, *recipients: bytes) -> bytes:
    return _encoded(text) + _encoded(b"s@s.example") + _encoded(b"".join(map(_encoded, recipients)))


def test_a_limit() -> None:
    """Over databytes all recipients are refused; line ends count as one byte."""
    mail = _mail(b"\r" + b"x\r\n" * 50, b"a@ours.example", b"b@ours.example")
    assert _letters(_run(mail, 7, None, databytes=100)[0].out) == b"KK"
    wire, queue, _ = _run(mail, 7, None, databytes=99)
    assert (_letters(wire.out), queue.taken) == (b"DD", []) and b"#5.3.4" in wire.out


def test_nobody() -> None:
    """A message for nobody has no answer and is not queued; the next one is."""
    wire, queue, good = _run(_mail(b"\nx") + _mail(b"\ny", b"a@ours.example"), 65536, None)
    assert (_letters(wire.out), [text for text, *_ in queue.taken], good) == (b"K", [b"y"], True)


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to how many recipients are heard."""
    monkeypatch.setattr(qmtpd, "RECIPIENTS_MAX", 10)
    assert _run(_mail(b"\nx", *[b""] * 10), 65536, None)[2]
    assert not _run(_mail(b"\nx", *[b""] * 11), 65536, None)[2]
