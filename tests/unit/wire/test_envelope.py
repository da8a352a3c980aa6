"""Envelopes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.envelope import ADDRESS_MAX, RECIPIENTS_MAX, AddressTooLong, Envelope, Recipient, decode, encode
from qm.wire.record import Malformed

ADDRESS = st.binary(max_size=40).map(lambda address: address.replace(b"\0", b"x"))
WORD = st.binary(max_size=20).map(lambda word: bytes(byte for byte in word if byte > 0x20 and byte != 0x7F))
RECIPIENT = st.builds(Recipient, ADDRESS, WORD, WORD)
ENVELOPE = st.builds(
    Envelope,
    ADDRESS,
    st.lists(RECIPIENT, max_size=5).map(tuple),
    client=WORD,
    protocol=WORD,
    eight_bit=st.booleans(),
    smtputf8=st.booleans(),
    requiretls=st.booleans(),
    tlsoptional=st.booleans(),
    ret=WORD,
    envid=WORD,
    uid=st.just(-1),
    pid=st.just(-1),
    born_ns=st.just(0),
    held=st.just(b""),
    login=st.just(b""),
)
STAMPED = st.builds(
    lambda envelope, uid, pid, born_ns: envelope._replace(uid=uid, pid=pid, born_ns=born_ns),
    ENVELOPE,
    st.integers(0, 1 << 32),
    st.integers(1, 1 << 22),
    st.integers(1, 1 << 62),
)


HELD = st.builds(lambda envelope, held, login: envelope._replace(held=held + b"x", login=login), ENVELOPE, WORD, WORD)


@given(ENVELOPE | STAMPED | HELD)
def test_what_was_encoded_is_decoded(envelope: Envelope) -> None:
    """Every field of an envelope survives, stamped by the queue or not."""
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_malformed(text: bytes) -> None:
    """Whatever a client sends is an envelope that can be written again, or Malformed."""
    try:
        envelope = decode(text)
    except Malformed:
        return
    assert decode(encode(envelope)) == envelope


@given(STAMPED, st.data())
def test_a_cut_envelope_keeps_no_half_address(envelope: Envelope, data: st.DataObject) -> None:
    """An envelope that is cut within a record is Malformed; between two it has fewer recipients, and nothing
    else changed.
    """
    text = encode(envelope)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        less = decode(cut)
    except Malformed:
        return
    assert cut.endswith(b"\0")
    assert less == envelope._replace(recipients=envelope.recipients[: len(less.recipients)])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0",
        b"Fa\0Tb",  # no last NUL
        b"Ta\0",  # no sender
        b"Fa\0Fb\0",  # two senders
        b"Fa\0\0",
        b"Fa\0Xb\0",  # a letter that nobody knows
        b"XFa\0",
        b"u-1\0Fa\0",
        b"u\0Fa\0",
        b"b99999999999999999999\0Fa\0",
        b"8yes\0Fa\0",
        b"Fa\0Nnever\0",  # NOTIFY of nobody
        b"i1.2.3.4\r\nRCPT TO:<x>\0Fa\0",
        b"Vid\n.\0Fa\0",
        b"Fa\0Orfc822;a b\0Tc\0",
    ],
)
def test_broken_envelopes_are_malformed(text: bytes) -> None:
    """What our own programs would not write is refused, also what could be smuggled into an SMTP command."""
    with pytest.raises(Malformed):
        decode(text)


def test_an_address_has_a_limit() -> None:
    """An address of ADDRESS_MAX bytes passes, one more has an error of its own, in either place and both ways."""
    long, too_long = b"a" * ADDRESS_MAX, b"a" * (ADDRESS_MAX + 1)
    assert decode(encode(Envelope(long, (Recipient(long),)))).recipients[0].address == long
    for envelope in (Envelope(too_long, ()), Envelope(b"", (Recipient(too_long),))):
        with pytest.raises(AddressTooLong):
            encode(envelope)
    for text in (b"F" + too_long + b"\0", b"F\0T" + too_long + b"\0"):
        with pytest.raises(AddressTooLong):
            decode(text)


def test_recipients_have_a_limit() -> None:
    """A hundred thousand recipients pass, one more does not."""
    text = b"F\0" + b"Ta\0" * RECIPIENTS_MAX
    assert len(decode(text).recipients) == RECIPIENTS_MAX
    with pytest.raises(Malformed):
        decode(text + b"Ta\0")


def test_a_nul_is_not_encoded() -> None:
    """A NUL in a field would make two records of one."""
    with pytest.raises(ValueError, match="NUL"):
        encode(Envelope(b"a\0Tb", ()))
