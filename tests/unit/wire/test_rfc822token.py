"""Words and marks of address fields (qmail.md 16.1, "RFC 822 tokenizer facts")."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.rfc822address import AddressList
from qm.wire.rfc822token import (
    ATOM,
    COMMENT,
    LITERAL,
    QUOTED,
    WIDTH,
    Token,
    Unparsable,
    comment,
    quoted,
    tokenise,
    unparse,
    value,
)
from tests.harness.operations import is_linear

SIZE = 3_000  # bytes of the smaller text when work is measured


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b".,@<>:;", [(bytes([byte]), bytes([byte])) for byte in b".,@<>:;"]),
        (b" a\tb\r\n c", [(ATOM, b"a"), (ATOM, b"b"), (ATOM, b"c")]),
        (b"a(b)c", [(ATOM, b"a"), (COMMENT, b"b"), (ATOM, b"c")]),
        (b"(a(b)c)", [(COMMENT, b"a(b)c")]),
        (b"(a\\)b)", [(COMMENT, b"a)b")]),
        (b'"a b\\"c"', [(QUOTED, b'a b"c')]),
        (b'a"b"', [(ATOM, b"a"), (QUOTED, b"b")]),
        (b"[127.0.0.1]", [(LITERAL, b"[127.0.0.1]")]),
        (b"[a\\]b[c]", [(LITERAL, b"[a]b[c]")]),
        (b"a\\,b", [(QUOTED, b"a,b")]),
        (b"a\\ b", [(QUOTED, b"a b")]),
        (b"a)b]c", [(QUOTED, b"a)b]c")]),
        (b"a\x01b\x7f", [(QUOTED, b"a\x01b\x7f")]),
        ("jörg".encode(), [(ATOM, "jörg".encode())]),
        (b"j\xf6rg", [(ATOM, b"j\xf6rg")]),
        (b'""', [(QUOTED, b"")]),
        (b'"a\n b"', [(QUOTED, b"a b")]),
        (b"a\rb", [(ATOM, b"a"), (ATOM, b"b")]),
        (b"", []),
    ],
)
def test_tokens(text: bytes, want: list[tuple[bytes, bytes]]) -> None:
    """Specials, comments that nest, quoted strings, literals, atoms, and a backslash in each of them."""
    assert [(token.kind, token.value) for token in tokenise(text)] == want


@pytest.mark.parametrize(
    "text", [b")", b"]", b"a )", b"(a", b"(a(b)", b'"a', b'"a\\"', b"[a", b"\\", b"a\\", b"a\0b", b"(\\"]
)
def test_unparsable(text: bytes) -> None:
    """A stray ) or ], what has no end, and NUL are errors."""
    with pytest.raises(Unparsable):
        tokenise(text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"a@b", b"a@b"),
        (b'"a b"@c (d)', b"a b@c"),
        (b"a@[1.2.3.4]", b"a@[1.2.3.4]"),
        (b"a . b @ c", b"a.b@c"),
    ],
)
def test_value(text: bytes, want: bytes) -> None:
    """An address is its text without quotes and comments; literals keep their brackets."""
    assert value(tokenise(text)) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"a  b", b"X: a b\n"),
        (b"a@b,c@d", b"X: a@b, c@d\n"),
        (b"a<b@c>", b"X: a <b@c>\n"),
        (b"<b@c>(d)", b"X: <b@c>(d)\n"),
        (b"a:b,c;", b"X: a: b, c;\n"),
        (b"a . b @ [ c ]", b"X: a.b@[ c ]\n"),
        (b"Q. User", b"X: Q.User\n"),
        (b'"a\\(b"(c\\(d)', b'X: "a\\(b" (c\\(d)\n'),
        (b"a\\\\b", b'X: "a\\\\b"\n'),
        (b"", b"X:\n"),
    ],
)
def test_unparse(text: bytes, want: bytes) -> None:
    """One blank between words, after : and , and before <; no other."""
    assert unparse(b"X", tokenise(text)) == want


def test_made_tokens() -> None:
    """What is quoted has backslashes where it needs them, and reads as what it means."""
    assert quoted(b'a"b\\c').text == b'"a\\"b\\\\c"'
    assert comment(b"a(b)\\").text == b"(a\\(b\\)\\\\)"
    for token in (quoted(b'a"b\\c(d)'), comment(b"a(b))\\"), quoted(b"")):
        assert tokenise(token.text) == [token]


def test_folding() -> None:
    """Lines are folded after commas only, as full as they may be; continued lines begin with two blanks."""
    short = [b"%d@x.example" % number for number in range(20)]
    lines = unparse(b"To", tokenise(b",".join([*short, b"l" * 100, *short]))).split(b"\n")[:-1]
    assert b"".join(lines).replace(b" ", b"") == b"To:" + b",".join([*short, b"l" * 100, *short])
    assert all(line.startswith(b"  ") and line[2:3] != b" " for line in lines[1:])
    assert all(line.endswith(b",") for line in lines[:-1])
    assert [len(line) for line in lines if len(line) > WIDTH] == [103]
    assert all(len(line) + len(after.split(b",")[0]) >= WIDTH for line, after in pairwise(lines))


_MARKS = [b"a", b" ", b"@", b".", b",", b"<", b">", b":", b";", b"(", b")", b'"', b"[", b"]", b"\\", b"\n "]
_TEXT = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(_MARKS)).map(b"".join))


@given(_TEXT)
def test_any_bytes_are_tokens_or_an_error(text: bytes) -> None:
    """Whatever comes is tokens or Unparsable; what is written is read as the same again, in lines without NUL."""
    try:
        tokens = tokenise(text)
    except Unparsable:
        return
    written = unparse(b"X", tokens)
    again = tokenise(written.partition(b":")[2])
    assert [(t.kind, t.value) for t in again] == [(t.kind, t.value) for t in tokens]
    assert b"\0" not in written
    assert b"\r" not in written
    assert all(line.startswith(b"  ") for line in written.split(b"\n")[1:-1])


def _parse(text: bytes) -> None:
    try:
        unparse(b"To", AddressList().run(tokenise(text)))
    except Unparsable:
        pass


_HOSTILE = b'( ) " [ ] < > <a@b> a: a:b; ; @a: . (a) ((a) \\ a\\ a, \r'.split(b" ")


@pytest.mark.parametrize("unit", [*_HOSTILE, b"a@b.example, ", b'"a" ', b"a ", b"\n ", b"x" * 100, b'"' + b"\\a" * 50])
def test_linear_time(unit: bytes) -> None:
    """Ten times the text takes at most eleven times the work."""

    def work(size: int) -> Callable[[], None]:
        text = unit * (size // len(unit))
        return lambda: _parse(text)

    assert is_linear(work, SIZE)


def test_what_is_not_linear_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that looked through what is left with each token would fail the test above."""
    step = AddressList._word

    def slow(one_pass: AddressList, token: Token) -> None:
        for other in one_pass._rest:
            assert other
        step(one_pass, token)

    monkeypatch.setitem(AddressList._STEPS, ATOM, slow)
    assert not is_linear(lambda size: lambda: _parse(b"a " * (size // 2)), SIZE // 4)


def test_token_is_a_value() -> None:
    """Tokens of one text are equal."""
    assert tokenise(b"a") == [Token(ATOM, b"a", b"a")]
