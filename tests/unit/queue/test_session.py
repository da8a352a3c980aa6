"""A connection of the queue's door, against well-behaved and hostile clients."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm.disk import queue
from qm.queue import session
from qm.unix import fds
from qm.unix.queueclient import QueueClient, Trace
from qm.wire import door as wire
from qm.wire import envelope as wire_envelope
from qm.wire.envelope import Envelope, Recipient
from qm.wire.queuecode import Deferred
from tests.harness.door import Door
from tests.harness.waiting import wait_for

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"),))
TEXT = wire_envelope.encode(ENVELOPE)
WHOLE = wire.whole(wire.Begin(), TEXT) + b"Subject: x\n\nbody\n"
BEGIN = wire.begin(wire.Begin())
NAME = b"1htpzqqd7xhat00k7pb"
SENSIBLE = [WHOLE, BEGIN, b"Mx", b"e" + TEXT[:5], b"E" + TEXT[5:], b"E" + TEXT]


class Raw:
    """A client that sends what it likes."""

    def __init__(self) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(10)
        self.channel.connect(queue.SOCKET)

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.channel.send(datagram, socket.MSG_NOSIGNAL)

    def answer(self) -> wire.Answer | None:
        """The next answer, or None if the service has closed."""
        datagram = self.channel.recv(4096)
        return wire.parse_answer(datagram) if datagram else None

    def codes(self, *datagrams: bytes) -> list[int]:
        """All answers' codes to *datagrams*, until the service closes or all is answered."""
        try:
            self.send(*datagrams)
        except BrokenPipeError:
            pass
        self.channel.shutdown(socket.SHUT_WR)
        found = []
        while answer := self.answer():
            found.append(answer.code)
        return found


Connect = Callable[[], Raw]


@pytest.fixture
def connect(door: Door) -> Iterator[Connect]:
    """Gives connections that end with the test."""
    clients: list[Raw] = []

    def make() -> Raw:
        clients.append(Raw())
        return clients[-1]

    yield make
    for client in clients:
        client.channel.close()


@pytest.fixture
def raw(connect: Connect) -> Raw:
    return connect()


def test_one_datagram_is_one_message(door: Door, raw: Raw) -> None:
    """S is answered with the ID of a message that is in new/."""
    raw.send(WHOLE)
    answer = raw.answer()
    assert answer is not None
    assert answer.code == 0
    assert os.listdir(queue.NEW) == [answer.text.decode()]
    assert b"\n\nbody\n" in door.new()[0]


def test_many_messages_on_one_connection(door: Door, raw: Raw) -> None:
    """After an answer, the next message may come, streamed or whole."""
    stream = [BEGIN, b"Mone\n", b"Mtwo\n", b"e" + TEXT[:5], b"E" + TEXT[5:]]
    assert raw.codes(WHOLE, *stream, WHOLE, *stream) == [0, 0, 0, 0, 0, 0]
    assert len(door.new()) == 4
    assert sum(b"one\ntwo\n" in file for file in door.new()) == 2
    assert door.connections == 1


@pytest.mark.parametrize(
    "datagrams",
    [
        [b"x"],
        [b"\0"],
        [b"M", WHOLE],
        [b"E" + TEXT, WHOLE],
        [b"S" + bytes(8), WHOLE],
        [b"S" + b"\xff" * 8, WHOLE],
        [wire.whole(wire.Begin(), b"garbage"), WHOLE],
        [wire.whole(wire.Begin(), TEXT + b"X\0"), WHOLE],
        [b"S" + b"x" * wire.DATAGRAM_MAX, WHOLE],
    ],
)
def test_a_malformed_datagram_gets_91_and_the_end(door: Door, raw: Raw, datagrams: list[bytes]) -> None:
    """Whoever does not keep to the format is answered with code 91 and not listened to any more."""
    assert raw.codes(*datagrams) == [91]
    assert door.new() == []
    assert os.listdir(queue.TMP) == []


@pytest.mark.parametrize(
    "datagrams",
    [
        [BEGIN, BEGIN],
        [BEGIN, WHOLE],
        [BEGIN, b"e" + TEXT, b"Mx"],
        [BEGIN, b"E"],
        [BEGIN, b"Mx", b"Egarbage\0"],
        [BEGIN, b"Mx", b"x"],
    ],
)
def test_a_malformed_stream_gets_91_and_the_end(door: Door, raw: Raw, datagrams: list[bytes]) -> None:
    """The same in the middle of a message, of which nothing is left."""
    assert raw.codes(*datagrams) == [0, 91]
    assert door.new() == []
    assert os.listdir(queue.TMP) == []


def test_a_long_address_gets_11(door: Door, raw: Raw) -> None:
    """An address that no other queue would take is told from a broken format."""
    assert raw.codes(wire.whole(wire.Begin(), b"F" + b"a" * 1001 + b"\0")) == [11]


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_client_that_goes_leaves_nothing(door: Door, connect: Connect, cut: int) -> None:
    """A connection that ends before its E, wherever, queues nothing."""
    client = connect()
    client.send(*[BEGIN, b"Mone\n", b"Mtwo\n", b"e" + TEXT[:5]][:cut])
    client.channel.close()
    check = connect()  # the door serves one after another, so the first is over then
    assert check.codes(WHOLE) == [0]
    assert len(door.new()) == 1
    assert os.listdir(queue.TMP) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(SENSIBLE) | st.binary(max_size=40), max_size=6))
def test_any_datagrams_are_answered(door: Door, datagrams: list[bytes]) -> None:
    """Whatever comes in whatever order, each answer is one of the table, the service goes on, and every 0 to a
    commit is a file.
    """
    before = len(door.new())
    client = Raw()
    codes = client.codes(*[datagram for datagram in datagrams if datagram])
    client.channel.close()
    assert set(codes) <= {0, 54, 91}
    assert len(codes) - codes.count(0) <= 1, "a failure ends the connection"
    begun = min(codes.count(0), datagrams.count(BEGIN))
    assert codes.count(0) - begun <= len(door.new()) - before <= codes.count(0)
    assert os.listdir(queue.TMP) == []


def test_a_client_that_says_nothing_within_a_message_is_given_up(door: Door, connect: Connect) -> None:
    """Between two datagrams of a message a client may wait for control/timeoutqueue, then it gets code 52."""
    door.timeout_s = 0.1
    client = connect()
    client.send(BEGIN, b"Mone\n")
    assert [answer.code for answer in iter(client.answer, None)] == [0, 52]
    assert os.listdir(queue.TMP) == []


def test_a_message_of_a_day_is_given_up(door: Door, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps sending has DEATH_S, below the age at which the sweep takes its file away."""
    assert session.DEATH_S < queue.STALE_S
    monkeypatch.setattr(session, "DEATH_S", -1.0)
    client = connect()
    client.send(BEGIN, b"Mone\n")
    assert [answer.code for answer in iter(client.answer, None)] == [0, 52]


def test_a_silent_client_costs_no_worker(door: Door, raw: Raw) -> None:
    """A client that has nothing to say for a tick goes back to the doorman, and its connection goes on."""
    wait_for(lambda: door.rests > 1, "a rest")
    raw.send(WHOLE)
    assert raw.answer() is not None
    assert door.connections == 1


def test_when_others_wait_a_worker_serves_one_message(door: Door, raw: Raw) -> None:
    """A busy client makes room after each message, and loses neither its connection nor a datagram."""
    door.crowded = True
    raw.send(WHOLE, WHOLE, WHOLE)
    assert [answer.code for answer in (raw.answer(), raw.answer(), raw.answer()) if answer] == [0, 0, 0]
    assert door.rests >= 2
    assert door.connections == 1


def test_a_message_that_came_just_before_the_end_is_served(door: Door, raw: Raw) -> None:
    """What is in when the service leaves is queued and answered; the kernel refuses what comes later."""
    raw.send(WHOLE)
    assert raw.answer() is not None
    raw.send(WHOLE, WHOLE)
    door.stop()
    codes = [answer.code for answer in iter(raw.answer, None)]
    assert codes == [0] * (len(door.new()) - 1)
    with pytest.raises(BrokenPipeError):
        raw.send(WHOLE)


def test_a_client_finds_its_way_when_others_wait(door: Door) -> None:
    """QueueClient gets its messages through one connection, whole and streamed, while others wait."""
    door.crowded = True
    big = b"x" * 200_000
    with QueueClient() as client:
        for message in (b"small\n", big, b"small\n", big, big, b"small\n"):
            submission = client.begin()
            submission.write(message)
            submission.commit(ENVELOPE)
    assert len(door.new()) == 6
    assert door.connections == 1


def test_descriptors_that_come_along_are_closed(door: Door, raw: Raw) -> None:
    """A client cannot fill the service's table of open files."""
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null", "rb") as null:
        for _ in range(20):
            fds.send_record(raw.channel, WHOLE, [null.fileno()] * 4)
            assert raw.answer() is not None
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # the store's


def test_a_client_that_never_reads_is_not_waited_for(door: Door, connect: Connect, raw: Raw) -> None:
    """Answers that nobody takes end the connection, and no worker hangs."""
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(5000):
            raw.send(WHOLE)
    check = connect()
    assert check.codes(WHOLE) == [0]


def test_an_id_is_given_by_send_only(door: Door, connect: Connect) -> None:
    """Who may not name a message gets 91; who may, is told when it was queued before."""
    named = wire.whole(wire.Begin(name=NAME), TEXT) + b"bounce\n"
    assert connect().codes(named, named) == [0, 0]
    assert os.listdir(queue.NEW) == [NAME.decode()]
    with QueueClient() as client:
        submission = client.begin(name=NAME)
        assert submission.commit(ENVELOPE) == (NAME, True)
    door.uid = 4711
    assert connect().codes(named) == [91]


def test_a_strangers_trace_is_not_used(door: Door) -> None:
    """The Received field says what the service knows of a stranger, and his envelope claims nothing."""
    claimed = ENVELOPE._replace(client=b"10.0.0.1", protocol=b"ESMTPSA", uid=0, pid=1, born_ns=5)
    for uid in (1002, 4711):
        door.uid = uid
        with QueueClient() as client:
            submission = client.begin(Trace(b"Received: from forged", b"\n  for <x@y>"))
            submission.write(b"\n")
            submission.commit(claimed)
    trusted, stranger = door.new()
    assert trusted.startswith(b"Received: from forged\n  id ")
    assert b"u1002\0p77\0b" in trusted
    assert b"\0i10.0.0.1\0PESMTPSA\0" in trusted
    assert stranger.startswith(b"Received: (qm-queue invoked by uid 4711)\n  id ")
    assert b"u4711\0p77\0b" in stranger
    assert b"\0Plocal\0F" in stranger
    assert b"10.0.0.1" not in stranger


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_queue_in_disorder_is_said_and_mended(door: Door, size: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Without its directories the queue answers 62 or 63, logs why, and works again once they are back."""

    def send() -> None:
        with QueueClient() as client:
            submission = client.begin()
            submission.write(b"x" * size)
            submission.commit(ENVELOPE)

    send()
    os.rename(queue.TMP, "queue/gone")
    os.unlink(Path(queue.NEW, os.listdir(queue.NEW)[0]))
    os.rmdir("queue/gone")
    for code in (63, 62):
        with pytest.raises(Deferred) as caught:
            send()
        assert caught.value.code == code
    assert "alert: cannot queue" in capfd.readouterr().err
    queue.make()
    send()
    assert len(door.new()) == 1


def test_out_of_memory_is_temporary(door: Door, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code 51, and nothing is left."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(wire_envelope, "decode", fail)
    assert connect().codes(WHOLE) == [51]
    assert connect().codes(BEGIN, b"Mx", b"E" + TEXT) == [0, 51]
    assert os.listdir(queue.TMP) == []
