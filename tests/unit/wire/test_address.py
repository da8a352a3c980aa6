"""How addresses are split, quoted and checked."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qm.wire import address


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"a@b", (b"a", b"b")),
        (b"a@b@c", (b"a@b", b"c")),
        (b"postmaster", (b"postmaster", b"")),
        (b"", (b"", b"")),
        (b"#@[]", (b"#", b"[]")),
    ],
)
def test_split(text: bytes, want: tuple[bytes, bytes]) -> None:
    """An address is split at its last @; without one it has no domain."""
    assert address.split(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", b""),
        (b"a@b", b"a@b"),
        (b"a.b+c=d@b", b"a.b+c=d@b"),
        (b"joe user@x", b'"joe user"@x'),
        (b"a@b@c", b'"a@b"@c'),
        (b".a@x", b'".a"@x'),
        (b"a.@x", b'"a."@x'),
        (b"a..b@x", b'"a..b"@x'),
        (b"@x", b'""@x'),
        (b'a"b\\c\r\nd@x', b'"a\\"b\\\\c\\\r\\\nd"@x'),
        (b"no domain", b'"no domain"'),
        (b"a(b)@X (y)", b'"a(b)"@X (y)'),
        (b"a\x7f@x", b'"a\x7f"@x'),
        ("jörg@exämple".encode(), "jörg@exämple".encode()),
        (b"j\xf6rg@x", b'"j\xf6rg"@x'),
    ],
)
def test_quote(text: bytes, want: bytes) -> None:
    """A local part is quoted if it is empty, has a dot too many or a special byte; UTF-8 is none (qmail.md 2.8)."""
    assert address.quote(text) == want


@pytest.mark.parametrize(
    ("mailbox", "want"),
    [
        (b"a@b", b"a@b"),
        (b'"joe user"@x', b"joe user@x"),
        (b'"a\\"b\\\\c"@x', b'a"b\\c@x'),
        (b'"a\\\\"@x', b"a\\@x"),
        (b'a."b c".d@x', b"a.b c.d@x"),
        (b'""@x', b"@x"),
        (b"a..b@x", b"a..b@x"),
        (b"postmaster", b"postmaster"),
        (b"#@[]", b"#@[]"),
        (b"a@[127.0.0.1]", b"a@[127.0.0.1]"),
        (b"a@[IPv6:::1]", b"a@[IPv6:::1]"),
        (b"a@under_score.x", b"a@under_score.x"),
        ("jörg@exämple".encode(), "jörg@exämple".encode()),
    ],
)
def test_parse(mailbox: bytes, want: bytes) -> None:
    """A mailbox becomes an address without quotes."""
    assert address.parse(mailbox) == want


@pytest.mark.parametrize(
    "mailbox",
    [
        b"",
        b"@",
        b"@x",
        b"a@",
        b"a@b@c",
        b"a b@x",
        b"a@b c",
        b"a@b..c",
        b"a@.b",
        b"a@b.",
        b"a(b)@x",
        b"a\\b@x",
        b'"a@x',
        b'a"@x',
        b'"a\\"@x',
        b"a@[x",
        b"a@x]",
        b"a\0@x",
        b'"a\0"@x',
        b'"a\\\n"@x',
        b"a@x\n",
        b"a@x\r",
        b"a\x7f@x",
        b"a\xff@x",
        b"a@\xff",
        b"a@" + b"b" * 256,
        b"<a@b>",
        b'"a@b"',
    ],
)
def test_parse_refuses(mailbox: bytes) -> None:
    """What is no mailbox, or not UTF-8, is no address."""
    assert address.parse(mailbox) is None


@given(st.binary(max_size=40), st.sampled_from([b"x", b"a.example", b"[127.0.0.1]"]))
@example(b'\\"', b"x")
def test_quote_is_undone_by_parse(local: bytes, domain: bytes) -> None:
    """Whatever local part can be quoted legally is read back as it was."""
    quoted = address.quote(local + b"@" + domain)
    parsed = address.parse(quoted)
    if address.is_utf8(local) and not any(byte < 32 or byte == 127 for byte in local):
        assert parsed == local + b"@" + domain
    else:
        assert parsed is None


@given(st.binary(max_size=200))
def test_parse_any_bytes(mailbox: bytes) -> None:
    """Any bytes give an address or nothing; an address has no control byte, so it can go into a header or a record."""
    parsed = address.parse(mailbox)
    assert parsed is None or not any(byte < 32 or byte == 127 for byte in parsed)


@pytest.mark.parametrize(
    "mailbox", [b'"' + b"\\a" * 2000, b"a." * 2000 + b"(", b'""' * 2000 + b"(", b"a" * 4000 + b"@" + b"b." * 2000]
)
def test_parse_in_linear_time(mailbox: bytes) -> None:
    """A mailbox made to confuse the matcher is refused without a second try (this test would not end)."""
    assert address.parse(mailbox) is None
