"""Where a header ends, and line ends (qmail.md 16.1, "Header parsing")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.rfc822 import HEADER_MAX, Field, HeaderReader, HeaderTooLong, field, fields, lines_ended, one_line


def read(*pieces: bytes) -> tuple[list[bytes], bytes]:
    """The fields, and the rest of the message."""
    reader = HeaderReader()
    rest = []
    for piece in pieces:
        if reader.over:
            rest.append(piece)
        else:
            reader.feed(piece)
    reader.end()
    return [found.text for found in reader.fields], b"".join([reader.body, *rest])


@pytest.mark.parametrize(
    ("message", "header", "body"),
    [
        (b"A: b\nC: d\n\nbody\n", [b"A: b\n", b"C: d\n"], b"\nbody\n"),
        (b"A: b\n\tc\n d\n\n", [b"A: b\n\tc\n d\n"], b"\n"),
        (b"A: b\nnone\n", [b"A: b\n"], b"\nnone\n"),
        (b"A: b\n", [b"A: b\n"], b""),
        (b"A: b", [b"A: b\n"], b""),
        (b"", [], b""),
        (b"\nbody", [], b"\nbody"),
        (b" x\nA: b\n", [], b"\n x\nA: b\n"),
        (b"From joe Tue\nA: b\n", [b"MBOX-Line: From joe Tue\n", b"A: b\n"], b""),
        (b"A: b\nFrom joe Tue\n", [b"A: b\n"], b"\nFrom joe Tue\n"),
        (b"From : joe\n", [b"From : joe\n"], b""),
        (b"A \t:b\n", [b"A \t:b\n"], b""),
        (b"A b: c\n", [], b"\nA b: c\n"),
        (b": c\n", [], b"\n: c\n"),
        (b"\xe4: c\n", [], b"\n\xe4: c\n"),
        (b"A:\n\x7f: c\n", [b"A:\n"], b"\n\x7f: c\n"),
        (b"A: b\n\r\nc\n", [b"A: b\n"], b"\n\r\nc\n"),
        (b"!~:\n", [b"!~:\n"], b""),
    ],
)
def test_header(message: bytes, header: list[bytes], body: bytes) -> None:
    """It ends at an empty line, at the end, or at a line that is neither field nor continuation: then one is put in."""
    assert read(message) == (header, body)
    assert read(*(message[i : i + 1] for i in range(len(message)))) == (header, body)


@given(st.lists(st.sampled_from([b"A: b\n", b" c\n", b"\n", b"x\n", b"From y\n", b"D", b":", b"\t"])), st.data())
def test_however_it_comes(lines: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere, it is the same; nothing is lost but what stands in the fields."""
    message = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=5)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    header, body = read(*pieces)
    assert (header, body) == read(message)
    whole = b"".join(header).replace(b"MBOX-Line: ", b"") + body
    assert whole.replace(b"\n", b"") == message.replace(b"\n", b"")


def test_fields() -> None:
    """A field knows its name in lower case, and its body."""
    assert field(b"SubJect : a: b\n") == Field(b"subject", b"SubJect : a: b\n")
    assert Field(b"x", b"X : a: b\n").body == b" a: b\n"
    assert field(b"no field\n") is None
    assert [found.name for found in fields([b"A: b\nB", b": c\n\nD: e\n"])] == [b"a", b"b"]


def test_a_header_without_end() -> None:
    """A header has a limit; a body has none."""
    with pytest.raises(HeaderTooLong):
        read(b"A: " + b"x" * HEADER_MAX)
    with pytest.raises(HeaderTooLong):
        read(b"A: x\n", *[b" x\n" * 100_000] * 30)
    assert read(b"A: x\n\n" + b"x" * HEADER_MAX)[0] == [b"A: x\n"]
    assert fields([b"A: " + b"x" * HEADER_MAX]) == []


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"a\r\nb\r\n", b"a\nb\n"),
        (b"a\r\nb\rc\nd\r\n\r\n", b"a\nb\rc\nd\n\n"),
        (b"a\nb\r\n", b"a\nb\r\n"),
        (b"\r\na\r\n", b"\na\n"),
        (b"\na\r\n", b"\na\r\n"),
        (b"a\rb\r\nc", b"a\rb\nc\n"),
        (b"a\r\nb\r", b"a\nb\r\n"),
        (b"a", b"a\n"),
        (b"a\r", b"a\r\n"),
        (b"", b""),
        (b"\r\r\n\r\n", b"\r\n\n"),
    ],
)
def test_line_ends(message: bytes, want: bytes) -> None:
    """CR LF becomes LF if the first line ends so; the last line gets its end."""
    assert b"".join(lines_ended([message] if message else [])) == want
    assert b"".join(lines_ended(message[i : i + 1] for i in range(len(message)))) == want


def test_one_line() -> None:
    """Line ends and NUL become blanks, or what is asked for."""
    assert one_line(b"a\r\nb\0c") == b"a  b c"
    assert one_line(b"a\nb", b"_") == b"a_b"
