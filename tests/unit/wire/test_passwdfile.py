"""users/passwd, the text and the cdb's values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import scram
from qm.wire.assign import BadLine
from qm.wire.passwdfile import Entry, canonical, decode, encode, line, parse
from qm.wire.record import Malformed
from qm.wire.storedsecret import Secrets
from qm.wire.userquery import Login

ANN = Entry(b"ann", Secrets(b"$y$x"), Login(b"ann", 1001, 1002, b"home/ann", b"/bin/sh"))
ANN_LINE = b"ann:$y$x:ann:1001:1002:home/ann:/bin/sh"

_names = st.binary(min_size=1, max_size=40).filter(lambda name: canonical(name) is not None)
_fields = st.binary(min_size=1, max_size=30).filter(lambda field: b"\0" not in field)
_ids = st.integers(min_value=1, max_value=2**32 - 2)
_logins = st.builds(Login, _fields, _ids, _ids, _fields, _fields, st.just(b""), st.just(b""))
_hashes = st.one_of(_fields.map(lambda field: b"{PLAIN}" + field), _fields.map(lambda h: b"$" + h.hex().encode()))
_keys = st.binary(min_size=32, max_size=32)
_verifiers = st.builds(scram.Verifier, st.just(4096), st.just(b"salt"), _keys, _keys)
_apps = st.dictionaries(st.sampled_from([b"phone", b"a@b", b"c.d"]), _verifiers).map(lambda apps: tuple(apps.items()))
_secrets = st.builds(Secrets, _hashes, st.one_of(st.none(), _verifiers), _apps, st.booleans())
_entries = st.builds(lambda name, secrets, login: Entry(name.lower(), secrets, login), _names, _secrets, _logins)


def test_a_line() -> None:
    """Seven fields in the order of passwd(5), but for a hash in the second."""
    assert parse(b"# users\n\n" + ANN_LINE + b"\n") == {b"ann": (3, ANN)}
    assert line(ANN) == ANN_LINE


def test_names_are_small() -> None:
    """Names count without regard to ASCII case; the rest of the line is as it is written."""
    assert parse(b"Ann@Ex.Example:h:U:1:1:/H:S\n")[b"ann@ex.example"][1].login == Login(b"U", 1, 1, b"/H", b"S")


@pytest.mark.parametrize("name", [b"", b"#x", b"a b", b"a:b", b"a\\b", b"a\n", b"a\0b", b"a\x7f", b"a" * 256])
def test_what_is_no_name(name: bytes) -> None:
    """Blanks, control bytes, colons and backslashes, and a # at the start, are in no name."""
    assert canonical(name) is None


def test_quoting() -> None:
    """A backslash quotes colon and backslash, and \\n is a line end, so that any password can be stored."""
    entry = Entry(b"ann", Secrets(b"{PLAIN}a:b\\c\nd"), ANN.login)
    assert line(entry).startswith(b"ann:{PLAIN}a\\:b\\\\c\\nd:ann:")
    assert parse(line(entry)) == {b"ann": (1, entry)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"ann", "not name:hash"),
        (ANN_LINE + b":more", "not name:hash"),
        (ANN_LINE + b"\\", "not name:hash"),
        (b"a b:h:u:1:1:/h:s", "not a name"),
        (b"ann:h:u:x:1:/h:s", "not a number"),
        (b"ann:h:u:1:-1:/h:s", "not a number"),
        (b"ann:h:u:1:4294967295:/h:s", "not a number"),
        (b"ann:h:u:0:1:/h:s", "uid 0"),
        (b"ann::u:1:1:/h:s", "empty"),
        (b"ann:h::1:1:/h:s", "empty"),
        (b"ann:h:u:1:1::s", "empty"),
        (b"ann:" + b"h" * 1025 + b":u:1:1:/h:s", "too long"),
        (b"ann:h\0:u:1:1:/h:s", "NUL"),
    ],
)
def test_bad_lines(text: bytes, why: str) -> None:
    """A line that makes no sense is refused with its number."""
    with pytest.raises(BadLine, match=f"2: .*{why}"):
        parse(b"# first\n" + text + b"\n")


def test_a_name_twice() -> None:
    """A name that comes twice is refused: one of the two passwords would never count."""
    with pytest.raises(BadLine, match="2: the name of line 1 again"):
        parse(ANN_LINE + b"\n" + ANN_LINE.upper() + b"\n")


@given(_entries)
def test_entries_come_back(entry: Entry) -> None:
    """What is written is what is read, from the text and from the cdb."""
    assert parse(line(entry) + b"\n") == {entry.name: (1, entry)}
    assert b"\n" not in line(entry)
    assert decode(entry.name, encode(entry)) == entry


@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    """Garbage is entries or a numbered line, as text and as a cdb's value."""
    try:
        parse(text)
    except BadLine as error:
        assert int(str(error).split(":")[0]) >= 1
    try:
        decode(b"x", text)
    except Malformed:
        pass


def test_no_hash_is_printed() -> None:
    """An entry that ends up in a message shows its name, not its hash."""
    assert repr(ANN) == "Entry(b'ann')"
    assert "y" not in repr(ANN.secrets)
