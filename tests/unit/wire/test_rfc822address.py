"""Lists of addresses, read from right to left (qmail.md 16.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.address import quote
from qm.wire.rfc822address import AddressList, addresses, single
from qm.wire.rfc822token import Token, Unparsable, tokenise, unparse, value


@pytest.mark.parametrize(
    ("body", "want", "written"),
    [
        (b"a@b", [b"a@b"], b"a@b"),
        (b"a@b, c@d", [b"a@b", b"c@d"], b"a@b, c@d"),
        (b"a@b c@d", [b"a@b", b"c@d"], b"a@b, c@d"),
        (b"Joe a@b", [b"Joe", b"a@b"], b"Joe, a@b"),
        (b"Joe <a@b>", [b"a@b"], b"Joe <a@b>"),
        (b"<a@b> <c@d>", [b"a@b", b"c@d"], b"<a@b>, <c@d>"),
        (b"A <a@b> B <c@d>", [b"a@b", b"c@d"], b"A <a@b>, B <c@d>"),
        (b"<a@b> c@d", [b"a@b", b"c@d"], b"<a@b>, c@d"),
        (b"[1] <c@d>", [b"[1]", b"c@d"], b"[1], <c@d>"),
        (b"a@b <c@d>", [b"c@d"], b"a@b <c@d>"),
        (b"g: a, b;", [b"a", b"b"], b"g: a, b;"),
        (b"g:;", [], b"g: ;"),
        (b"a, g h: b;, c", [b"a", b"b", b"c"], b"a, g h: b;, c"),
        (b"g: <a@b>; <c@d>", [b"a@b", b"c@d"], b"g: <a@b>;, <c@d>"),
        (b"<>", [b""], b"<>"),
        (b"<@a,@b:c@d>", [b"@a,@b:c@d"], b"<@a, @b: c@d>"),
        (b"(x) a@b (y)", [b"a@b"], b"a@b (x) (y)"),
        (b"a (x) @ b", [b"a@b"], b"a@b (x)"),
        (b"<a@b (x)>", [b"a@b"], b"<a@b (x)>"),
        (b",,a,,", [b"a"], b", , a, ,"),
        (b"", [], b""),
        (b"(nobody)", [], b"(nobody)"),
        (b"a@b;", [b"a@b"], b"a@b;"),
    ],
)
def test_lists(body: bytes, want: list[bytes], written: bytes) -> None:
    """Commas that are missing are put in, groups are known, what stands before < stays, comments come behind."""
    assert addresses(body) == want
    field = unparse(b"X", AddressList().run(tokenise(body)))
    assert field == (b"X: " + written + b"\n" if written else b"X:\n")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"a: b, c", [b"c", b"b"]),
        (b"a; b; c", [b"c", b"b"]),
        (b"a > b, c", [b"c", b"b"]),
        (b"a < b, c", [b"c"]),
        (b"a, <b", []),
    ],
)
def test_what_is_right_of_a_mistake_counts(body: bytes, found: list[bytes]) -> None:
    """A list that cannot be parsed has still told the addresses behind the mistake."""
    one_pass = AddressList()
    with pytest.raises(Unparsable):
        one_pass.run(tokenise(body))
    assert [value(address) for address in one_pass.found][: len(found)] == found


def test_rewriting() -> None:
    """Each address is rewritten by itself, without its comments, and the rest stays."""

    def rewrite(address: list[Token]) -> list[Token]:
        return [*address, *tokenise(b".x")]

    one_pass = AddressList(rewrite)
    tokens = one_pass.run(tokenise(b"Joe <a@b (c)>, d@e (f), g: h;"))
    assert unparse(b"To", tokens) == b"To: Joe <a@b.x (c)>, d@e.x (f), g: h.x;\n"
    assert [value(address) for address in one_pass.found] == [b"h.x", b"d@e.x", b"a@b.x"]


@pytest.mark.parametrize(
    ("address", "written"),
    [
        (b"", b""),
        (b"a", b"a"),
        (b"a@b.c", b"a@b.c"),
        (b"a.b+c@d", b"a.b+c@d"),
        (b"joe user@x", b'"joe user"@x'),
        (b"a@b@c", b'"a@b"@c'),
        (b".a@x", b'".a"@x'),
        (b"a.@x", b'"a."@x'),
        (b"@x", b'""@x'),
        (b"a(b)@x", b'"a(b)"@x'),
        (b"a@[127.0.0.1]", b"a@[127.0.0.1]"),
        (b"#@[]", b"#@[]"),
        (b"a@", b"a@"),
        ("jörg@exämple".encode(), "jörg@exämple".encode()),
        (b'a"b\\@x', b'"a\\"b\\\\"@x'),
    ],
)
def test_single(address: bytes, written: bytes) -> None:
    """An envelope's address is split at its last @; the local part is quoted if it must be."""
    assert b"".join(token.text for token in single(address)) == written
    assert value(single(address)) == address


@pytest.mark.parametrize(
    "address", [b"a@b c", b"a@b(c)", b"a@<b", b"a@b,c", b"a@b\nc", b"a\rb@c", b"a\0b@c", b'a@"b"', b"a@b;"]
)
def test_no_single(address: bytes) -> None:
    """A host that is none, line ends and NUL are errors."""
    with pytest.raises(Unparsable):
        single(address)


@given(st.binary(max_size=50))
def test_any_address_means_itself(address: bytes) -> None:
    """Whatever an envelope holds is itself again, and written so that it is read as itself; or it is an error."""
    try:
        tokens = single(address)
    except Unparsable:
        return
    assert value(tokens) == address
    if address and not address.endswith(b"@"):
        assert addresses(b"<" + b"".join(token.text for token in tokens) + b">") == [address]


@given(st.text(alphabet='ab. "\\@(,<>[]:;', max_size=20), st.text(alphabet="ab", min_size=1, max_size=5))
def test_what_we_quote_is_read_again(local: str, domain: str) -> None:
    """Addresses as Return-Path has them mean what they meant."""
    address = f"{local}@{domain}".encode()
    assert addresses(b"Joe <" + quote(address) + b">") == [address]


_PARTS = [b"a", b"@", b".", b",", b"<", b">", b":", b";", b"(c)", b'"q"', b"[l]", b" "]


@given(st.lists(st.sampled_from(_PARTS), max_size=30).map(b"".join))
def test_a_list_is_stable(body: bytes) -> None:
    """A list that has been written means the same addresses, and is written so again."""
    try:
        first = AddressList()
        written = unparse(b"X", first.run(tokenise(body)))
    except Unparsable:
        return
    again = AddressList()
    assert unparse(b"X", again.run(tokenise(written.partition(b":")[2]))) == written
    assert list(map(value, again.found)) == list(map(value, first.found))
