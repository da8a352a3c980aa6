"""users/assign and what it is compiled to (qmail.md 12.2, 12.3)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.assign import BadLine, User, compile_lines, decode
from qm.wire.record import Malformed

CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "assign").glob("*.in"))


def _show(text: bytes) -> bytes:
    try:
        compiled = compile_lines(text)
    except BadLine as error:
        return b"bad " + str(error).encode() + b"\n"
    lines = [b"%r -> %r\n" % entry for entry in compiled.entries]
    return b"".join([*lines, *(b"warning " + warning.encode() + b"\n" for warning in compiled.warnings)])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    """Each file compiles to the entries that stand beside it, or is refused with that line."""
    assert _show(path.read_bytes()) == path.with_suffix(".want").read_bytes()


def test_the_corpus_is_there() -> None:
    """A corpus that nobody finds tests nothing."""
    assert len(CORPUS) >= 10


def test_decode() -> None:
    """A value is six fields, ids in decimal."""
    assert decode(b"joe\x00503\x0078\x00/home/joe\x00-\0list") == User(b"joe", 503, 78, b"/home/joe", b"-", b"list")


@pytest.mark.parametrize("value", [b"", b"a\x001\x002\0h\0d", b"a\0x\x002\0h\0d\0e", b"a\x001\x002\0h\0d\0e\0f"])
def test_decode_refuses(value: bytes) -> None:
    """Anything else is malformed."""
    with pytest.raises(Malformed):
        decode(value)


@given(st.binary(max_size=200))
def test_any_bytes_compile_or_are_refused(text: bytes) -> None:
    """Garbage gives entries or a numbered line, never another exception, and every value can be decoded."""
    try:
        entries = compile_lines(text).entries
    except BadLine as error:
        assert int(str(error).split(":")[0]) >= 1
    else:
        for key, value in entries:
            assert not key or decode(value).uid > 0


_FIELD = st.text(alphabet="abcXYZ0-./ ", max_size=8).map(str.encode)
_ID = st.integers(min_value=1, max_value=65534)


@given(st.sampled_from((b"=", b"+")), _FIELD, _FIELD, _ID, _ID, _FIELD, _FIELD, _FIELD, _FIELD)
def test_fields_come_back(
    kind: bytes, local: bytes, user: bytes, uid: int, gid: int, home: bytes, dash: bytes, ext: bytes, rest: bytes
) -> None:
    """What a line says is what its entry says; what follows the last colon is ignored."""
    line = kind + b":".join((local, user, b"%d" % uid, b"%d" % gid, home, dash, ext, rest))
    entries = compile_lines(line + b"\n.\n").entries
    key = b"!" + local.lower() + (b"\0" if kind == b"=" else b"")
    assert entries[0][0] == key
    assert decode(entries[0][1]) == User(user, uid, gid, home, dash, ext)
    assert entries[-1] == (b"", local[-1:] if kind == b"+" else b"")
