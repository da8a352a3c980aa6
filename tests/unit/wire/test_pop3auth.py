"""The POP3 protocol before login."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.pop3 import Signal
from qm.wire.pop3auth import RECORD_MAX, Authorization, Login, checkpassword_record, unpack_login
from qm.wire.record import Malformed, pack

BANNER = b"<1.2@mx.example>"
CORPUS = Path(__file__).parents[2] / "corpus" / "popup"
COMMANDS = (
    b"USER alice",
    b"USER",
    b"user b o b",
    b"PASS secret",
    b"PASS  two  blanks ",
    b"PASS",
    b"APOP alice 0123456789abcdef",
    b"APOP alice",
    b"STAT",
    b"RETR 1",
    b"NOOP",
    b"CAPA",
    b"UTF8",
    b"LANG",
    b"QUIT",
    b"AUTH",
    b"STLS",
    b"PASS " + b"x" * 500,
    b"USER a\0b",
    b"USER \xff\xfe",
)
script = st.lists(
    st.one_of(st.sampled_from(COMMANDS), st.binary(max_size=30)).flatmap(
        lambda line: st.sampled_from([line + b"\r\n", line + b"\n", line])
    ),
    max_size=12,
).map(b"".join)


def _converse(pieces: list[bytes], offer_apop: bool = True) -> tuple[Login | None, bytes]:
    server = Authorization(b"+OK " + BANNER, BANNER, offer_apop=offer_apop, errors_max=20)
    for piece in [*pieces, b""]:
        server.receive(piece)
        event = server.next_event()
        if isinstance(event, Login):
            return event, server.outgoing()
    assert event is Signal.EOF
    return None, server.outgoing()


@given(script, st.data())
def test_pieces_do_not_matter(data: bytes, draw: st.DataObject) -> None:
    """The same bytes give the same login and replies: whole, byte by byte, or cut anywhere."""
    whole = _converse([data] if data else [])
    assert _converse([bytes([byte]) for byte in data]) == whole
    cut = draw.draw(st.integers(0, len(data)))
    assert _converse([piece for piece in (data[:cut], data[cut:]) if piece]) == whole


@given(script)
def test_any_login_fits(data: bytes) -> None:
    """Whatever comes in, a login that comes out is one that a checkpassword can read."""
    login = _converse([data] if data else [])[0]
    if login is not None:
        record = checkpassword_record(login, BANNER)
        assert record.split(b"\0") == [login.name, login.secret, BANNER, login.method, b""]
        assert len(record) <= RECORD_MAX
        assert unpack_login(pack(*login)) == login


@pytest.mark.parametrize("case", sorted(path.stem for path in CORPUS.glob("*.in")))
def test_corpus(case: str) -> None:
    """What the client of each corpus file sends gets exactly the wanted replies and, in a last line, login."""
    login, replies = _converse([(CORPUS / f"{case}.in").read_bytes()])
    wanted = (CORPUS / f"{case}.want").read_bytes()
    assert replies + (b"=> " + b" ".join(login) + b"\n" if login else b"") == wanted


def test_user_and_pass() -> None:
    """The password is all that follows one space; the name has no blanks around it."""
    assert _converse([b"USER  alice \r\nPASS  a b \r\n"])[0] == Login(b"PASS", b"alice", b" a b ")


def test_apop() -> None:
    """APOP's name and digest end at a space; without a banner in the greeting there is no APOP."""
    line = b"APOP alice 0123456789abcdef0123456789abcdef\r\n"
    assert _converse([line])[0] == Login(b"APOP", b"alice", b"0123456789abcdef0123456789abcdef")
    assert _converse([line], offer_apop=False)[0] is None


@pytest.mark.parametrize("line", [b"PASS x", b"USER", b"STAT", b"APOP alice", b"STLS", b"AUTH PLAIN"])
def test_refused(line: bytes) -> None:
    """Nothing but a name and a password gets further."""
    login, replies = _converse([line + b"\r\n"])
    assert login is None
    assert replies.split(b"\r\n")[1].startswith(b"-ERR ")


def test_too_long_for_a_checkpassword() -> None:
    """Name and password that no checkpassword could read are refused as what they are: wrong."""
    name = b"n" * 300
    login, replies = _converse([b"USER " + name + b"\r\nPASS " + b"p" * 300 + b"\r\n"])
    assert login is None
    assert b"-ERR [AUTH]" in replies


def test_names_are_not_told_apart() -> None:
    """USER gets the same answer whoever it names."""
    assert _converse([b"USER root\r\n"])[1] == _converse([b"USER nobody-here\r\n"])[1]


def test_the_implementation_is_not_for_strangers() -> None:
    """CAPA before login does not say what we are (RFC 2449 6.9)."""
    assert b"IMPLEMENTATION" not in _converse([b"CAPA\r\n"])[1]


def test_a_secret_is_in_no_repr() -> None:
    """What fails may be printed; a password may not."""
    assert "secret" not in repr(Login(b"PASS", b"alice", b"secret"))


@pytest.mark.parametrize(
    "record", [b"", b"PASS\0a\0", b"PASS\0\0b\0", b"EXEC\0a\0b\0", b"PASS\0a\0b\0c\0", b"PASS\0a\0b"]
)
def test_no_other_record_is_a_login(record: bytes) -> None:
    """The process with privileges takes one shape of record, since who writes it may have been taken over."""
    with pytest.raises(Malformed):
        unpack_login(record)
