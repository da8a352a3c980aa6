"""Messages on the wire: CRLF, dots, the end, TOP, and the sizes that go with them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qm.wire.multiline import Multiline, WireSize

text = st.lists(
    st.sampled_from([b"\n", b"\r", b".", b"a", b"\r\n", b"\n\n", b"\n.", b"..", b"\xff", b"\0"]), max_size=40
).map(b"".join)
limits = st.sampled_from([-1, 0, 1, 2, 3, 10**30])


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(min(cut, len(data)) for cut in cuts)
    return [piece for a, b in zip([0, *ends], [*ends, len(data)], strict=True) if (piece := data[a:b])]


def _sent(pieces: list[bytes], limit: int = -1) -> bytes:
    multiline = Multiline(limit)
    sent = [multiline.feed(piece) for piece in pieces]
    return b"".join(sent) + multiline.end()


def _by_lines(data: bytes, limit: int) -> bytes:
    """The same, line by line."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if limit >= 0 and b"" in lines:
        lines = lines[: lines.index(b"") + 1 + min(limit, len(lines))]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


@given(text, limits, st.lists(st.integers(0, 60), max_size=6))
@example(b"a: b\r\n\r\nx\r\n", 0, [8])
def test_as_line_by_line(data: bytes, limit: int, cuts: list[int]) -> None:
    """However the message is cut into chunks, the reply is the same as if it were made line by line."""
    assert _sent(_pieces(data, cuts), limit) == _by_lines(data, limit)
    assert _sent([data[i : i + 1] for i in range(len(data))], limit) == _by_lines(data, limit)


@given(text, st.lists(st.integers(0, 60), max_size=6))
def test_size(data: bytes, cuts: list[int]) -> None:
    """The size is what a client has got, without stuffed dots and what completes a last line."""
    wire = WireSize()
    for piece in _pieces(data, cuts):
        wire.feed(piece)
    lines = _by_lines(data, -1)[:-3].split(b"\r\n")
    got = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
    assert wire.total == len(got) - (2 if data and not data.endswith(b"\n") else 0)


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\n..\n", b"..\r\n...\r\n.\r\n"),
        (b"a\r\nb\rc\n", b"a\r\nb\rc\r\n.\r\n"),
        (b"a\r", b"a\r\r\n.\r\n"),
        (b"\n", b"\r\n.\r\n"),
    ],
)
def test_examples(data: bytes, sent: bytes) -> None:
    """No extra empty line; a dot alone never ends the reply early."""
    assert _sent([data] if data else []) == sent


def test_top_stops_reading() -> None:
    """Once TOP has shown its lines, the rest of the message need not be read."""
    multiline = Multiline(1)
    multiline.feed(b"h: v\n\none\ntwo\n")
    assert multiline.done
