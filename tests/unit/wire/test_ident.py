"""What an ident server may answer (RFC 1413)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import ident


def test_the_question() -> None:
    """The peer's port first: it is the one on the machine that is asked."""
    assert ident.query(40000, 25) == b"40000 , 25\r\n"


@pytest.mark.parametrize(
    ("answer", "info"),
    [
        (b"6193, 23 : USERID : UNIX :stjohns\r\n", b"stjohns"),
        (b"6193,23:USERID:UNIX:joe\n", b"joe"),
        (b"6193, 23 : userid : OTHER , US-ASCII : a b:c\r\n", b"ab:c"),
        (b"1,2:USERID:UNIX:joe\r\nrest", b"joe"),
        (b"1,2:USERID:UNIX:\x1b[2J\xff\0\r\n", b"?[2J??"),
        (b"1,2:USERID:UNIX:" + b"x" * 900 + b"\r\n", b"x" * ident.INFO_MAX),
        (b"6195, 23 : ERROR : NO-USER\r\n", None),
        (b"6195, 23 : ERROR : NO-USER : x\r\n", None),
        (b"1,2:USERID:UNIX:\r\n", None),
        (b"1,2:USERID:UNIX:joe", None),
        (b"1,2:USERID:UNIX:" + b"x" * 2000 + b"\r\n", None),
        (b"", None),
        (b"\n", None),
    ],
)
def test_answers(answer: bytes, info: bytes | None) -> None:
    """Only a whole line that names a user does; an error, a cut line and an endless one do not."""
    assert ident.parse(answer) == info


@given(st.binary(max_size=2000))
def test_any_answer_is_printable(answer: bytes) -> None:
    """It goes into the environment and the log."""
    info = ident.parse(answer)
    assert info is None or (0 < len(info) <= ident.INFO_MAX and all(32 < byte < 127 for byte in info))
