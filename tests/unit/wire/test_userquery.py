"""The records of users/socket (docs/INTERNALS.md 1.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.record import Malformed
from qm.wire.userquery import (
    AskExists,
    AskLogin,
    Exists,
    Later,
    Login,
    LoginAnswer,
    Question,
    Refused,
    Verdict,
    pack_exists,
    pack_login,
    pack_question,
    unpack_exists,
    unpack_login,
    unpack_question,
)

_text = st.binary(max_size=40).filter(lambda text: b"\0" not in text)
_ids = st.integers(min_value=1, max_value=2**32 - 2)
_questions = st.one_of(st.builds(AskExists, _text), st.builds(AskLogin, _text, _text, _text))
_answers = st.one_of(
    st.builds(Login, _text, _ids, _ids, _text, _text), st.builds(Refused, _text), st.builds(Later, _text)
)


def test_the_words_on_the_wire() -> None:
    """Questions and answers are the records that INTERNALS 1.7 names."""
    assert pack_question(AskExists(b"a@b")) == b"exists\0a@b\0"
    assert pack_question(AskLogin(b"ann", b"pw", b"")) == b"login\0ann\0pw\0\0"
    assert pack_exists(Exists(Verdict.NO, b"who?")) == b"no\0who?\0"
    assert pack_login(Login(b"ann", 1, 2, b"/h", b"/s")) == b"ok\0ann\x001\x002\0/h\0/s\0"
    assert pack_login(Refused(b"x")) == b"bad\0x\0"
    assert pack_login(Later(b"x")) == b"later\0x\0"


@given(_questions)
def test_questions_come_back(question: Question) -> None:
    """userd reads what a client asks."""
    assert unpack_question(pack_question(question)) == question


@given(_answers)
def test_answers_come_back(answer: LoginAnswer) -> None:
    """A client reads what userd answers."""
    found = unpack_login(pack_login(answer))
    assert found == answer
    assert type(found) is type(answer)


@pytest.mark.parametrize("verdict", Verdict)
def test_verdicts_come_back(verdict: Verdict) -> None:
    """A verdict is its word, whoever compares it."""
    assert unpack_exists(pack_exists(Exists(verdict, b"t"))) == (verdict.value, b"t")


@pytest.mark.parametrize(
    "record",
    [b"", b"exists\0", b"exists\0a\0b\0", b"exists\0a", b"login\0a\0b\0", b"login\0a\0b\0c\0d\0", b"x\0a\0", b"\0\0"],
)
def test_what_is_no_question(record: bytes) -> None:
    """A record with other fields than a question has is malformed."""
    with pytest.raises(Malformed):
        unpack_question(record)


@pytest.mark.parametrize(
    "record",
    [b"ok\0a\x000\x001\0h\0s\0", b"ok\0a\0x\x001\0h\0s\0", b"ok\0a\x001\x002\0h\0", b"bad\0", b"yes\0a\0", b"x\0\0"],
)
def test_what_is_no_login(record: bytes) -> None:
    """An answer that makes no sense, or makes somebody root, is malformed."""
    with pytest.raises(Malformed):
        unpack_login(record)


@given(st.binary(max_size=100))
def test_any_bytes(record: bytes) -> None:
    """Any bytes are a question, an answer, or malformed."""
    for unpack in (unpack_question, unpack_exists, unpack_login):
        try:
            unpack(record)
        except Malformed:
            pass


def test_no_secret_is_printed() -> None:
    """A question that ends up in a message shows its name, not its secret."""
    assert repr(AskLogin(b"ann", b"hunter2", b"")) == "AskLogin(b'ann')"
