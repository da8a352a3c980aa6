"""The datagrams of the queue's door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import door, envelope, queuecode
from qm.wire.record import Malformed

FIELD = st.binary(max_size=60).map(lambda field: field.replace(b"\0", b""))
NAME = b"1htpzqqd7xhat00k7p"
BEGIN = st.builds(door.Begin, FIELD, FIELD, st.sampled_from([b"", NAME, NAME + b"b"]))


@given(BEGIN)
def test_begin_arrives(start: door.Begin) -> None:
    """What a message begins with survives the way."""
    assert door.parse_first(memoryview(door.begin(start))) == start


@given(BEGIN, st.binary(max_size=100), st.binary(max_size=100))
def test_a_whole_message_arrives(start: door.Begin, text: bytes, message: bytes) -> None:
    """The three parts of an S datagram come apart as they were put together, whatever bytes they hold."""
    first = door.parse_first(memoryview(door.whole(start, text) + message))
    assert isinstance(first, door.Whole)
    assert (first.begin, first.envelope, bytes(first.message)) == (start, text, message)


@given(st.builds(bytes.__add__, st.sampled_from([b"", b"S", b"B"]), st.binary(max_size=200)))
def test_any_first_datagram_is_understood_or_malformed(datagram: bytes) -> None:
    """Garbage raises Malformed, and no other exception."""
    try:
        first = door.parse_first(memoryview(datagram))
    except Malformed:
        return
    assert isinstance(first, door.Begin | door.Whole)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"x",
        b"M",
        b"Mtext",
        b"EFa\0",
        b"B",
        b"Ba\0b\0",
        b"Ba\0b\0\0\0",
        b"Ba\0b\0../../x\0",
        b"B" + b"a" * (door.BEGIN_MAX + 1) + b"\0\0\0",
        b"S",
        b"S\0\0\0\0\0\0\0",
        b"S\0\0\0\0\0\0\0\0",  # a begin of nothing
        b"S\0\0\0\3\0\0\0\1\0\0\0",  # shorter than its lengths
        b"S\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0",
    ],
)
def test_what_no_message_begins_with(datagram: bytes) -> None:
    """A datagram of the wrong kind, with missing fields, a bad ID or lying lengths is Malformed."""
    with pytest.raises(Malformed):
        door.parse_first(memoryview(datagram))


PART = st.binary(min_size=1, max_size=30)


@given(st.lists(st.binary(max_size=30), max_size=5), st.lists(PART, min_size=1, max_size=5))
def test_a_streamed_message_arrives(pieces: list[bytes], parts: list[bytes]) -> None:
    """Message pieces come out as they went in; the envelope is whole whatever its parts are."""
    stream = door.Stream()
    for piece in pieces:
        event = stream.take(memoryview(b"M" + piece))
        assert isinstance(event, door.Message)
        assert bytes(event.piece) == piece
    for part in parts[:-1]:
        assert isinstance(stream.take(memoryview(b"e" + part)), door.More)
    event = stream.take(memoryview(b"E" + parts[-1]))
    assert isinstance(event, door.Commit)
    assert event.envelope == b"".join(parts)


@given(st.lists(st.builds(bytes.__add__, st.sampled_from([b"", b"M", b"e", b"E"]), st.binary(max_size=9))))
def test_any_datagrams_are_events_or_malformed(datagrams: list[bytes]) -> None:
    """Garbage in a stream raises Malformed, and no other exception."""
    stream = door.Stream()
    try:
        for datagram in datagrams:
            event = stream.take(memoryview(datagram))
            assert isinstance(event, door.Message | door.More | door.Commit)
            if isinstance(event, door.Commit):
                break
    except Malformed:
        pass


def test_no_message_bytes_after_the_envelope_began() -> None:
    """M after e is out of order: the message's end has been said."""
    stream = door.Stream()
    stream.take(memoryview(b"eFa\0"))
    with pytest.raises(Malformed):
        stream.take(memoryview(b"Mtext"))


@pytest.mark.parametrize("datagram", [b"e", b"E"])
def test_a_part_of_nothing_is_malformed(datagram: bytes) -> None:
    """Empty parts could be sent for ever without an end."""
    with pytest.raises(Malformed):
        door.Stream().take(memoryview(datagram))


def test_an_envelope_has_a_limit() -> None:
    """A client cannot make the service hold more than ENVELOPE_MAX."""
    stream = door.Stream()
    part = memoryview(b"e" + b"x" * door.CHUNK_MAX)
    with pytest.raises(Malformed):
        for _ in range(envelope.ENVELOPE_MAX // door.CHUNK_MAX + 1):
            stream.take(part)


@given(st.integers(0, 255), FIELD, st.booleans())
def test_an_answer_arrives(code: int, text: bytes, already: bool) -> None:
    """Code, text and mark survive the way."""
    answer = door.Answer(code, text, already)
    assert door.parse_answer(door.answer(answer)) == answer


@given(st.binary(max_size=60))
def test_any_answer_is_understood_or_malformed(datagram: bytes) -> None:
    """A client believes no garbage."""
    try:
        answer = door.parse_answer(datagram)
    except Malformed:
        return
    assert 0 <= answer.code <= 255


def test_a_whole_message_fits_into_a_datagram() -> None:
    """What may go as S, with the longest begin, stays below the largest datagram that the service takes."""
    assert door.WHOLE_MAX + door.BEGIN_MAX < door.DATAGRAM_MAX


def test_each_code_has_a_kind_and_a_text() -> None:
    """Only 11 to 40 and 115 are permanent (qmail.md section 5); every code has words without a path and a status."""
    for code in range(1, 256):
        failure = queuecode.failure(code)
        permanent = 11 <= code <= 40 or code == 115
        assert failure.code == code
        assert failure.exit_code == (100 if permanent else 111)
        assert failure.status.startswith("5." if permanent else "4.")
        assert failure.public
        assert "/" not in failure.public
