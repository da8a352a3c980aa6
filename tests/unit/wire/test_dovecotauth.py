"""Dovecot's authentication protocol, the client's side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.dovecotauth import escaped, is_name, judged, known, password, unescaped, user
from qm.wire.record import Malformed
from qm.wire.userquery import Later, Login, Refused


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=20))
def test_a_question_is_one_line(name: bytes, secret: bytes, address: bytes) -> None:
    """Whatever is typed, the question has its lines and fields and no more: nothing can be slipped in."""
    question = password(7, name, secret, address)
    assert question.count(b"\n") == 3
    assert question.splitlines(keepends=True)[-1].count(b"\t") == 6 + bool(address)
    assert user(name).count(b"\n") == 2
    assert user(name).count(b"\t") == 5
    assert unescaped(escaped(name)) == name


def test_names() -> None:
    """A name with control bytes is nobody's."""
    assert is_name(b"ann@me.example")
    assert not any(map(is_name, (b"", b"a\nb", b"a\tb", b"a\x7f")))


def test_verdicts() -> None:
    """OK has the canonical name; FAIL is refused, or later; other lines are none."""
    assert judged(b"OK\t1\tuser=ann\x01tx") == b"ann\tx"
    assert judged(b"FAIL\t1\tuser=ann") == Refused(b"wrong name or password")
    assert isinstance(judged(b"FAIL\t1\tuser=ann\ttemp"), Later)
    for line in (b"", b"SPID\t1", b"MECH\tPLAIN\tplaintext", b"OK\t2\tuser=ann", b"DONE"):
        assert judged(line) is None
    with pytest.raises(Malformed):
        judged(b"CONT\t1\t")


def test_users() -> None:
    """A user has uid, gid and home, and is not root."""
    assert known(b"USER\t1\tann\tuid=7\tgid=8\thome=/h") == Login(b"ann", 7, 8, b"/h", b"/bin/sh", b"ann")
    assert isinstance(known(b"NOTFOUND\t1"), Refused)
    assert isinstance(known(b"FAIL\t1\tx"), Later)
    assert known(b"SPID\t1") is None
    for line in (b"USER\t1\tann", b"USER\t1\tann\tuid=0\tgid=0\thome=/", b"USER\t1\tann\tuid=7\tgid=7"):
        with pytest.raises(Malformed):
            known(line)


@given(st.binary(max_size=80))
def test_any_line(line: bytes) -> None:
    """Any line is a verdict, none, or malformed."""
    for read in (judged, known):
        try:
            read(line)
        except Malformed:
            pass
