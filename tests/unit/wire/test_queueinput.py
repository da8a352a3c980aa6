"""The envelope on qm-queue's descriptor 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.envelope import ADDRESS_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.queuecode import Deferred, Refused
from qm.wire.queueinput import EnvelopeReader

ADDRESS = st.binary(max_size=30).map(lambda address: address.replace(b"\0", b"x"))


def _feed(chunks: list[bytes]) -> Envelope | int | None:
    """The envelope, or qm-queue's exit code, or None if the bytes end too early."""
    reader = EnvelopeReader()
    try:
        for chunk in chunks:
            if reader.feed(chunk):
                return reader.envelope()
    except (Deferred, Refused) as error:
        return error.code
    return None


def _bytewise(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def _text(sender: bytes, recipients: list[bytes]) -> bytes:
    return b"F" + sender + b"\0" + b"".join(b"T" + recipient + b"\0" for recipient in recipients) + b"\0"


@given(ADDRESS, st.lists(ADDRESS, max_size=5), st.data())
def test_an_envelope_is_read_however_it_is_cut(sender: bytes, recipients: list[bytes], data: st.DataObject) -> None:
    """Whole, byte by byte and cut at random, the same envelope comes out, and bytes behind its end are not
    looked at.
    """
    text = _text(sender, recipients) + data.draw(st.binary(max_size=10))
    wanted = Envelope(sender, tuple(map(Recipient, recipients)))
    at = data.draw(st.integers(0, len(text)))
    for chunks in ([text], _bytewise(text), [text[:at], text[at:]]):
        assert _feed(chunks) == wanted


@given(st.binary(max_size=100), st.data())
def test_any_bytes_are_an_envelope_or_a_code_or_too_few(text: bytes, data: st.DataObject) -> None:
    """Garbage gives a code of qm-queue, the same one however it is cut."""
    found = _feed([text])
    assert isinstance(found, Envelope) or found in (None, 11, 91)
    at = data.draw(st.integers(0, len(text)))
    assert _feed(_bytewise(text)) == _feed([text[:at], text[at:]]) == found


@given(ADDRESS, st.lists(ADDRESS, max_size=5), st.data())
def test_a_cut_envelope_is_none(sender: bytes, recipients: list[bytes], data: st.DataObject) -> None:
    """Without its last NUL no envelope is taken, so a caller that dies queues nothing."""
    text = _text(sender, recipients)
    assert _feed([text[: data.draw(st.integers(0, len(text) - 1))]]) is None


@pytest.mark.parametrize("text", [b"\0", b"\0\0", b"Ta\0\0", b"a\0\0", b"Fa\0Fb\0\0", b"Fa\0b\0\0"])
def test_a_wrong_letter_is_a_format_error(text: bytes) -> None:
    """Exit 91."""
    assert _feed([text]) == 91


def test_a_long_address_is_exit_11() -> None:
    """ADDRESS_MAX bytes pass; one more is refused as soon as it has come, also without a NUL."""
    long = b"a" * ADDRESS_MAX
    assert _feed([_text(long, [long])]) == Envelope(long, (Recipient(long),))
    assert _feed([_text(long + b"a", [])]) == 11
    assert _feed([_text(b"", [long + b"a"])]) == 11
    assert _feed([b"F" + long + b"aa"]) == 11
    assert _feed([b"F\0T" + long + b"aa"]) == 11


def test_recipients_have_a_limit() -> None:
    """A hundred thousand pass; one more is refused, permanently."""
    envelope = _feed([_text(b"", [b"a"] * RECIPIENTS_MAX)])
    assert isinstance(envelope, Envelope)
    assert len(envelope.recipients) == RECIPIENTS_MAX
    assert _feed([_text(b"", [b"a"] * (RECIPIENTS_MAX + 1))]) == 31


def test_an_endless_envelope_is_refused() -> None:
    """The reader's memory has a bound."""
    record = b"T" + b"a" * 999 + b"\0"
    reader = EnvelopeReader()
    reader.feed(b"F\0")
    with pytest.raises(Refused):
        for _ in range(100_000):
            reader.feed(record)
