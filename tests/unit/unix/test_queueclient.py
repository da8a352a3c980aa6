"""The queue's client against services that keep the rules, break them, or die."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.disk import queue
from qm.errors import Permanent, Temporary
from qm.unix.queueclient import QueueClient, Trace
from qm.wire import door
from qm.wire import envelope as wire_envelope
from qm.wire.envelope import ADDRESS_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.queuecode import Deferred
from tests.harness.door import Door
from tests.harness.waiting import wait_for

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"),))
ID = b"1htpzqqd7xhat00k7p"
GO = door.answer(door.Answer(0, b""))
DONE = door.answer(door.Answer(0, ID))
Script = list[bytes | None]  # what is answered to each datagram: None closes, b"" says nothing


class Service:
    """Answers what its script says, a script for each connection; keeps what it got."""

    def __init__(self, *scripts: Script) -> None:
        self.got: list[bytes] = []
        self.ended = 0  # connections
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("queue/socket")
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._run, args=(scripts,))
        self._thread.start()

    def _run(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            with channel:
                self._serve(channel, script)
            self.ended += 1

    def wait_for_end(self, count: int = 1) -> None:
        wait_for(lambda: self.ended == count, "the end of a connection")

    def _serve(self, channel: socket.socket, script: Script) -> None:
        for answer in script:
            datagram = channel.recv(door.DATAGRAM_MAX)
            if datagram:
                self.got.append(datagram)
            if answer is None or not datagram:
                return
            if answer:
                channel.send(answer)

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Service]]:
    """Starts a scripted service; with none, nobody listens."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    services: list[Service] = []

    def start(*scripts: Script) -> Service:
        services.append(Service(*scripts))
        return services[-1]

    yield start
    for service in services:
        service.close()


Serve = Callable[..., Service]


def _send(client: QueueClient, message: bytes = b"body\n") -> bytes:
    submission = client.begin(Trace(b"head", b"tail"))
    submission.write(message)
    return submission.commit(ENVELOPE).name


def test_a_small_message_is_one_datagram(serve: Serve) -> None:
    """Begin, envelope and message go together, and the connection is kept."""
    service = serve([DONE, DONE])
    with QueueClient() as client:
        assert _send(client) == _send(client) == ID
    first = door.parse_first(memoryview(service.got[0]))
    assert isinstance(first, door.Whole)
    assert first.begin == door.Begin(b"head", b"tail")
    assert wire_envelope.decode(first.envelope) == ENVELOPE
    assert bytes(first.message) == b"body\n"


@pytest.mark.parametrize("chunk", [1000, 65536, 300_000])
def test_a_large_message_is_streamed(serve: Serve, chunk: int) -> None:
    """However it is written, what is streamed is the message, no datagram is too large, and little is held back."""
    message = os.urandom(300_000)
    service = serve([GO, *[b""] * 5, DONE])
    with QueueClient() as client:
        submission = client.begin()
        for at in range(0, len(message), chunk):
            submission.write(message[at : at + chunk])
        assert submission.commit(ENVELOPE).name == ID
    assert [datagram[:1] for datagram in service.got] == [b"B", *[b"M"] * 5, b"E"]
    assert b"".join(datagram[1:] for datagram in service.got[1:-1]) == message
    assert max(map(len, service.got)) <= door.CHUNK_MAX + 1


def test_a_large_envelope_goes_in_parts(serve: Serve) -> None:
    """A small message to very many recipients is streamed for its envelope's sake."""
    envelope = Envelope(b"", tuple(Recipient(b"user%06d@example.org" % count) for count in range(10_000)))
    text = wire_envelope.encode(envelope)
    parts = -(-len(text) // door.CHUNK_MAX)
    service = serve([GO, b"", *[b""] * (parts - 1), DONE])
    with QueueClient() as client:
        submission = client.begin()
        submission.write(b"body\n")
        submission.commit(envelope)
    assert [datagram[:1] for datagram in service.got] == [b"B", b"M", *[b"e"] * (parts - 1), b"E"]
    assert b"".join(datagram[1:] for datagram in service.got[2:]) == text


@pytest.mark.parametrize("limit", [4608, 40_000])
def test_a_small_socket_buffer_is_enough(serve: Serve, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel takes smaller datagrams only (EMSGSIZE), the client sends smaller ones."""
    real = socket.socket.connect

    def connect(self: socket.socket, path: str) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limit // 2)
        real(self, path)

    monkeypatch.setattr(socket.socket, "connect", connect)
    queue.make()
    opened = Door()
    message = os.urandom(100_000)
    with QueueClient() as client:
        _send(client, message)
        _send(client, message * 3)
    found = [message in file for file in opened.new()]
    opened.close()
    assert found == [True, True]


def test_no_service_is_a_temporary_failure_before_the_message(serve: Serve) -> None:
    """ensure says so, with a text that names no path, so that smtpd can answer 451 before 354."""
    with QueueClient() as client:
        with pytest.raises(Temporary) as caught:
            client.ensure()
        assert "/" not in caught.value.public
        assert caught.value.status == "4.3.0"
        with pytest.raises(Temporary):
            _send(client)


def test_ensure_sees_that_a_kept_connection_has_died(serve: Serve) -> None:
    """When the service has closed and gone, ensure fails; when a new one is there, it connects."""
    service = serve([DONE], [DONE])
    client = QueueClient()
    client.ensure()
    _send(client)
    service.wait_for_end()
    client.ensure()
    client.ensure()
    _send(client)
    service.close()
    os.unlink("queue/socket")
    with pytest.raises(Temporary):
        client.ensure()
    serve([DONE])
    client.ensure()
    _send(client)
    client.close()


@pytest.mark.parametrize("message", [b"small\n", b"x" * 200_000])
def test_a_kept_connection_that_died_costs_nothing(serve: Serve, message: bytes) -> None:
    """The next message goes on a new connection, without a failure."""
    service = serve([DONE], [DONE] if len(message) < 1000 else [GO, b"", b"", b"", b"", DONE])
    with QueueClient() as client:
        _send(client)
        service.wait_for_end()
        _send(client, message)
    assert len(service.got) == (2 if len(message) < 1000 else 7)


@pytest.mark.parametrize("script", [[None], [GO, None], [GO, b"", None], [GO, b"", b"", b"", b"", None]])
def test_a_service_that_dies_is_a_temporary_failure(serve: Serve, script: Script) -> None:
    """Wherever it ends, the client says temporary, and sends nothing of the message a second time."""
    service = serve(script, [DONE] * 9)
    with QueueClient() as client:
        with pytest.raises(Temporary):
            _send(client, b"x" * 200_000)
        assert _send(client) == ID
    assert [datagram[:1] for datagram in service.got].count(b"B") <= 1


def test_a_whole_message_without_answer_is_not_sent_again(serve: Serve) -> None:
    """After the commit nobody knows; a repetition is the caller's decision."""
    service = serve([None], [DONE])
    with QueueClient() as client, pytest.raises(Temporary) as caught:
        _send(client)
    assert caught.value.status.startswith("4.")
    assert len(service.got) == 1


@pytest.mark.parametrize("answer", [b"garbage", b"0\0", b"999\0\0\0", b"-1\0x\0\0"])
def test_a_mangled_answer_is_a_temporary_failure(serve: Serve, answer: bytes) -> None:
    """A service that does not speak our language has not accepted."""
    serve([answer])
    with QueueClient() as client, pytest.raises(Temporary):
        _send(client)


def test_codes_become_failures(serve: Serve) -> None:
    """A code of the table is raised as its kind, with the code for qm-queue's exit; the next message may come."""
    serve([door.answer(door.failed(code)) for code in (53, 31, 11)] + [DONE])
    with QueueClient() as client:
        for code, kind in ((53, Temporary), (31, Permanent), (11, Permanent)):
            with pytest.raises(kind) as caught:
                _send(client)
            assert caught.value.code == code  # type: ignore[attr-defined]
        _send(client)


def test_a_failure_in_the_middle_is_told_as_the_service_said_it(serve: Serve) -> None:
    """When the service refuses a stream half-way (a full disk), its code is raised, not a broken pipe."""
    serve([GO, door.answer(door.failed(53)), None])
    with QueueClient() as client, pytest.raises(Deferred) as caught:
        _send(client, b"x" * 2_000_000)
    assert caught.value.code == 53


def test_a_service_that_hangs_is_a_temporary_failure(serve: Serve) -> None:
    """Each wait ends after timeout_s."""
    serve([b"", b""])
    with QueueClient(timeout_s=0.1) as client, pytest.raises(Temporary):
        _send(client)


def test_abort_leaves_nothing(serve: Serve) -> None:
    """An aborted message is thrown away, before or after it was streamed in part, and also by the next begin."""
    queue.make()
    opened = Door()
    with QueueClient() as client:
        for size in (10, 200_000):
            submission = client.begin()
            submission.write(b"x" * size)
            submission.abort()
            client.begin().write(b"y" * size)
        _send(client)
    files = opened.new()
    opened.close()
    assert len(files) == 1
    assert os.listdir(queue.TMP) == []


def test_what_no_queue_would_take_is_refused_at_once(serve: Serve) -> None:
    """Long addresses and too many recipients never reach the service."""
    with QueueClient() as client:
        for envelope, code in (
            (Envelope(b"", (Recipient(b"a" * (ADDRESS_MAX + 1)),)), 11),
            (Envelope(b"", (Recipient(b"a"),) * (RECIPIENTS_MAX + 1)), 31),
            (Envelope(b"", (Recipient(b"a" * ADDRESS_MAX),) * 20_000), 31),
        ):
            with pytest.raises(Permanent) as caught:
                client.begin().commit(envelope)
            assert caught.value.code == code  # type: ignore[attr-defined]
