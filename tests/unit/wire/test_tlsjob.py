"""What is asked of qm-tlsd and what it answers comes through unchanged; anything else is Malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import tlsjob
from qm.wire.record import Malformed
from qm.wire.tlsjob import FRAME, FRAME_MAX, SAY_MAX, AskReady, Facts, Serve, Sorry

FACTS = Facts(b"TLSv1.2", b"ECDHE-X", 256, b"mx.test", b"ann@test", ((b"tls-unique", b"\0\xff"), (b"other", b"a:b,c")))


@pytest.mark.parametrize("question", [AskReady(), Serve(b"220 go\r\n", b"smtp", 60000), Serve(b"", b"pop3", 0)])
def test_questions(question: AskReady | Serve) -> None:
    """Both questions come through."""
    assert tlsjob.unpack_question(tlsjob.pack_question(question)) == question


@pytest.mark.parametrize("answer", [FACTS, FACTS._replace(bindings=()), Sorry(True, b"why"), Sorry(False, b"")])
def test_answers(answer: Facts | Sorry) -> None:
    """Both answers come through, after their length."""
    framed = tlsjob.frame(answer)
    assert tlsjob.frame_size(framed[:FRAME]) == len(framed) - FRAME
    assert tlsjob.unpack_answer(framed[FRAME:]) == answer


@pytest.mark.parametrize(
    "record",
    [b"", b"ready", b"serve\0", b"other\0\0smtp\0001\0", b"serve\0\0smtp\0x\0", b"serve\0\0smtp\0003600001\0",
     b"serve\0" + b"x" * (SAY_MAX + 1) + b"\0smtp\0001\0"],
)  # fmt: skip
def test_bad_questions(record: bytes) -> None:
    """Unknown kinds, numbers that are none, and texts over their limits are refused."""
    with pytest.raises(Malformed):
        tlsjob.unpack_question(record)


@pytest.mark.parametrize("head", [b"", b"\0\0", (FRAME_MAX + 1).to_bytes(FRAME, "big"), b"\xff\xff"])
def test_bad_sizes(head: bytes) -> None:
    """A record is never empty, and never larger than any of ours."""
    with pytest.raises(Malformed):
        tlsjob.frame_size(head)


@pytest.mark.parametrize("word", [b"x", b"x:", b":00", b"x:0", b"x:zz", b"x:00,", b",x:00"])
def test_bad_bindings(word: bytes) -> None:
    """A binding has a type and a value in hexadecimal."""
    with pytest.raises(Malformed):
        tlsjob.read_bindings(word)


@given(st.binary(max_size=200))
def test_any_bytes(record: bytes) -> None:
    """Any record is understood or Malformed."""
    for unpack in (tlsjob.unpack_question, tlsjob.unpack_answer, tlsjob.read_bindings):
        try:
            unpack(record)
        except Malformed:
            pass
