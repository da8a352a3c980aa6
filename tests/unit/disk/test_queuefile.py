"""Queue files tell by themselves whether they are whole."""

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.disk import queuefile
from qm.disk.queuefile import Corrupt, QueueFile
from qm.wire import envelope as wire_envelope
from qm.wire.envelope import Envelope, Recipient

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"), Recipient(b"e@f.example")), uid=1, pid=2, born_ns=3)


def _bytes(message: bytes, envelope: Envelope = ENVELOPE) -> bytes:
    text = wire_envelope.encode(envelope)
    return message + text + queuefile.footer(len(message), zlib.crc32(message), len(text), zlib.crc32(text))


def _open(data: bytes) -> int:
    fd = os.memfd_create("queue file")
    os.write(fd, data)
    return fd


def _read(data: bytes) -> tuple[QueueFile, bytes]:
    """All that a queue file of *data* tells; raises Corrupt."""
    fd = _open(data)
    try:
        file = queuefile.read(fd)
        return file, b"".join(queuefile.checked_message(fd, file, 7))
    finally:
        os.close(fd)


MESSAGE = st.binary(max_size=200)


@given(MESSAGE)
def test_a_whole_file_is_read(message: bytes) -> None:
    """Message and envelope come out as they went in, whatever bytes the message has."""
    file, found = _read(_bytes(message))
    assert found == message
    assert file.envelope == ENVELOPE


@given(MESSAGE, st.data())
def test_a_cut_file_is_corrupt(message: bytes, data: st.DataObject) -> None:
    """Any truncation is seen."""
    whole = _bytes(message)
    with pytest.raises(Corrupt):
        _read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(MESSAGE, st.data())
def test_a_changed_byte_is_corrupt(message: bytes, data: st.DataObject) -> None:
    """Any changed byte, in message, envelope or footer, is seen."""
    whole = bytearray(_bytes(message))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        _read(bytes(whole))


def test_each_changed_byte_of_a_footer_is_corrupt() -> None:
    """No byte of the footer is idle: each bit of each one is seen."""
    whole = _bytes(b"Subject: x\n\nbody\n")
    for at in range(len(whole) - queuefile.FOOTER_SIZE, len(whole)):
        for bit in range(8):
            broken = bytearray(whole)
            broken[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                _read(bytes(broken))


@given(MESSAGE, st.binary(min_size=1, max_size=100), st.booleans())
def test_a_grown_file_is_corrupt(message: bytes, more: bytes, at_end: bool) -> None:
    """Bytes before the message or after the footer are seen."""
    whole = _bytes(message)
    with pytest.raises(Corrupt):
        _read(whole + more if at_end else more + whole)


@given(st.binary(max_size=300))
def test_any_bytes_are_corrupt_and_no_other_exception(data: bytes) -> None:
    """A file of garbage is Corrupt."""
    with pytest.raises(Corrupt):
        _read(data)


def test_zeros_are_corrupt() -> None:
    """A file that a crash has left at its full length, filled with zeros, is Corrupt."""
    with pytest.raises(Corrupt):
        _read(bytes(len(_bytes(b"message"))))


@pytest.mark.parametrize("envelope", [ENVELOPE._replace(uid=-1, pid=-1, born_ns=0), ENVELOPE._replace(born_ns=0)])
def test_an_envelope_without_birth_is_corrupt(envelope: Envelope) -> None:
    """Accept stamps every envelope, so one without stamp was not written by it."""
    with pytest.raises(Corrupt):
        _read(_bytes(b"message", envelope))


def test_a_message_that_holds_a_queue_file_is_one_message() -> None:
    """The footer at the end counts; one inside the message is text."""
    inner = _bytes(b"inner\n")
    assert _read(_bytes(inner))[1] == inner


@given(MESSAGE, st.integers(0, 250), st.integers(0, 250))
def test_a_range_never_reaches_the_envelope(message: bytes, offset: int, most: int) -> None:
    """Whatever range is asked for, only message bytes come."""
    fd = _open(_bytes(message))
    try:
        assert queuefile.read_message(fd, queuefile.read(fd), offset, most) == message[offset : offset + most]
    finally:
        os.close(fd)


def test_a_file_that_shrinks_while_it_is_read_is_corrupt() -> None:
    """A short read is no end of the message."""
    fd = _open(_bytes(b"x" * 1000))
    file = queuefile.read(fd)
    os.ftruncate(fd, 500)
    with pytest.raises(Corrupt):
        list(queuefile.checked_message(fd, file))
    os.close(fd)


def test_the_footer_is_text_of_64_bytes(tmp_path: Path) -> None:
    """Footer and message can be read with less; the largest numbers fit."""
    footer = queuefile.footer(10**13 - 1, 0xFFFFFFFF, 10**9 - 1, 0xFFFFFFFF)
    assert len(footer) == queuefile.FOOTER_SIZE == 64
    assert footer.startswith(b"\n")
    assert footer.endswith(b"\n")
    assert footer.strip().decode("ascii").isprintable()
    assert queuefile.parse_footer(footer) == (10**13 - 1, 0xFFFFFFFF, 10**9 - 1, 0xFFFFFFFF)


@pytest.mark.parametrize("number", [b"-000000000001", b"+000000000001", b"0_00000000001", b" 000000000001"])
def test_a_number_has_one_spelling(number: bytes) -> None:
    """What Python's int would take besides plain digits is refused."""
    footer = queuefile.footer(1, 2, 3, 4).replace(b"0000000000001", number)
    with pytest.raises(Corrupt):
        queuefile.parse_footer(footer)
