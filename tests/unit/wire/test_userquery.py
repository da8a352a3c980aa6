"""The records of users/socket (docs/INTERNALS.md 1.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.record import RECORD_MAX, Malformed
from qm.wire.userquery import (
    AskExists,
    AskLogin,
    AskMechanisms,
    AskScram,
    AskSender,
    AskSpend,
    Exists,
    Later,
    Login,
    LoginAnswer,
    Mechanisms,
    Method,
    Question,
    Refused,
    Scram,
    Spent,
    Verdict,
    marks,
    pack_exists,
    pack_login,
    pack_mechanisms,
    pack_question,
    pack_scram,
    pack_spent,
    unpack_exists,
    unpack_login,
    unpack_mechanisms,
    unpack_question,
    unpack_scram,
    unpack_spent,
)

_text = st.binary(max_size=40).filter(lambda text: b"\0" not in text)
_ids = st.integers(min_value=1, max_value=2**32 - 2)
_marks = st.lists(_text, max_size=5).map(marks)
_questions = st.one_of(
    st.builds(AskExists, _text),
    st.builds(AskLogin, st.sampled_from(Method), _text, _text, _text, _text),
    st.builds(AskScram, _text),
    st.just(AskMechanisms()),
    st.builds(AskSender, _text, _ids, _text, _text),
    st.builds(AskSpend, _text, st.integers(0, 10**6), _marks),
)
_answers = st.one_of(
    st.builds(Login, _text, _ids, _ids, _text, _text, _text, _text),
    st.builds(Refused, _text, st.integers(0, 3600), st.booleans()),
    st.builds(Later, _text),
)


def test_the_words_on_the_wire() -> None:
    """Questions and answers are the records that INTERNALS 1.7 names."""
    assert pack_question(AskExists(b"a@b")) == b"exists\0a@b\0"
    login = AskLogin(Method.PASSWORD, b"ann", b"pw", b"", b"192.0.2.1")
    assert pack_question(login) == b"login\0password\0ann\0pw\0\x00192.0.2.1\0"
    assert pack_question(AskScram(b"ann")) == b"scram\0ann\0"
    assert pack_question(AskMechanisms()) == b"mechanisms\0"
    assert pack_question(AskSender(b"ann", 7, b"/h", b"a@b")) == b"sender\0ann\x007\0/h\0a@b\0"
    assert pack_question(AskSpend(b"ann", 2, (b"x", b"y"))) == b"spend\0ann\x002\0x,y\0"
    assert pack_exists(Exists(Verdict.NO, b"who?")) == b"no\0who?\0"
    assert pack_login(Login(b"ann", 1, 2, b"/h", b"/s", b"n", b"s")) == b"ok\0ann\x001\x002\0/h\0/s\0n\0s\0"
    assert pack_login(Refused(b"x", 2, True)) == b"bad\0x\x002\x001\0"
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
    [b"", b"exists\0", b"exists\0a\0b\0", b"exists\0a", b"login\0a\0b\0", b"login\0x\0b\0c\0d\0e\0", b"x\0", b"\0\0"],
)
def test_what_is_no_question(record: bytes) -> None:
    """A record with other fields than a question has is malformed."""
    with pytest.raises(Malformed):
        unpack_question(record)


@pytest.mark.parametrize(
    "record",
    [
        b"ok\0a\x000\x001\0h\0s\0n\0\0",
        b"ok\0a\0x\x001\0h\0s\0n\0\0",
        b"ok\0a\x001\x002\0h\0",
        b"bad\0",
        b"bad\0a\0x\x000\0",
        b"yes\0a\0",
        b"x\0\0",
    ],
)
def test_what_is_no_login(record: bytes) -> None:
    """An answer that makes no sense, or makes somebody root, is malformed."""
    with pytest.raises(Malformed):
        unpack_login(record)


@given(st.binary(max_size=100))
def test_any_bytes(record: bytes) -> None:
    """Any bytes are a question, an answer, or malformed."""
    for unpack in (unpack_question, unpack_exists, unpack_login, unpack_scram, unpack_mechanisms, unpack_spent):
        try:
            unpack(record)
        except Malformed:
            pass


def test_no_secret_is_printed() -> None:
    """A question that ends up in a message shows its name, not its secret."""
    asked = AskLogin(Method.PASSWORD, b"ann", b"hunter2", b"", b"")
    assert repr(asked) == "AskLogin(PASSWORD, b'ann')"


@given(st.one_of(st.builds(Scram, _text, st.integers(0, 10**6)), st.builds(Later, _text)))
def test_scram_comes_back(answer: Scram | Later) -> None:
    """Salt and iterations, or that nobody can tell now."""
    assert unpack_scram(pack_scram(answer)) == answer


@given(st.builds(Spent, st.sampled_from(Verdict), _text, st.booleans()))
def test_spent_comes_back(answer: Spent) -> None:
    """Whether a message may go, and whether somebody should be told."""
    assert unpack_spent(pack_spent(answer)) == answer


def test_mechanisms_come_back() -> None:
    """Mechanisms are words."""
    for names in ((), (b"PLAIN",), (b"PLAIN", b"LOGIN")):
        assert unpack_mechanisms(pack_mechanisms(Mechanisms(names))) == Mechanisms(names)


def test_marks() -> None:
    """A domain has one mark in whatever case; very many domains still fit a record."""
    assert marks([b"A.example", b"a.EXAMPLE"]) == marks([b"a.example"])
    assert len(marks([b"a.example", b"b.example"])) == 2
    many = marks([b"%d.example" % number for number in range(5000)])
    assert len(pack_question(AskSpend(b"x" * 255, 5000, many))) < RECORD_MAX
