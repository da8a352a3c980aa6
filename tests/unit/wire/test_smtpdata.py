"""The two decoders of message text, whole and cut."""

import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qm.wire.smtpdata import BareLineEnd, ChunkDecoder, DotDecoder

PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\r\n.", b"\r\n.\r\n", b"\n.\n", b"ab\r\n", b"\xff"]
)
WIRE = st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=30))


def cuts(wire: bytes, rng: random.Random) -> list[bytes]:
    at, pieces = 0, []
    while at < len(wire):
        size = rng.randint(1, 4)
        pieces.append(wire[at : at + size])
        at += size
    return pieces


def dots(pieces: list[bytes]) -> tuple[bytes, bytes] | str:
    """Text and rest; or why there is none."""
    decoder, text = DotDecoder(), b""
    try:
        for count, piece in enumerate(pieces, 1):
            more, rest = decoder.feed(piece)
            text += more
            if rest is not None:
                return text, rest + b"".join(pieces[count:])
    except BareLineEnd:
        return "bare"
    return "unfinished"


def by_the_book(wire: bytes) -> tuple[bytes, bytes] | str:
    """RFC 5321 4.5.2, a line at a time: only CRLF ends lines, a lone CR or LF before the end is an error."""
    text, rest = b"", wire
    while True:
        line, crlf, rest = rest.partition(b"\r\n")
        if not crlf:
            return "bare" if re.search(rb"\n|\r(?!\Z)", line) else "unfinished"
        if b"\r" in line or b"\n" in line:
            return "bare"
        if line == b".":
            return text, rest
        text += line.removeprefix(b".") + b"\n"


@pytest.mark.parametrize(
    ("wire", "want"),
    [
        (b".\r\n", (b"", b"")),
        (b"\r\n.\r\n", (b"\n", b"")),
        (b"a\r\n.\r\nQUIT\r\n", (b"a\n", b"QUIT\r\n")),
        (b"..\r\n.a\r\n...b\r\n.\r\n", (b".\na\n..b\n", b"")),
        (b"a.\r\n.\r\n", (b"a.\n", b"")),
        (b"\0\r\n\0.\r\n.\r\n", (b"\0\n\0.\n", b"")),
        (b"a\r\n.\r\n.\r\n", (b"a\n", b".\r\n")),
        (b".\r", "unfinished"),
        (b"a\r\n.", "unfinished"),
        (b"", "unfinished"),
    ],
)
def test_dots(wire: bytes, want: tuple[bytes, bytes] | str) -> None:
    """The end is CRLF.CRLF, or .CRLF at once; a dot at the beginning of any other line is taken away."""
    assert dots([wire]) == want
    assert dots([wire[at : at + 1] for at in range(len(wire))]) == want


SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\n\n.\r\n",
    b"\r\r\n.\r\n",
    b"\r\n\0.\n",
    b"\r\n.\0\n",
    b"\n\0.\r\n",
    b"\r\0\n.\r\n",
    b"\r\n.\r\0\n",
]


@pytest.mark.parametrize("ending", SMUGGLING)
def test_smuggling(ending: bytes) -> None:
    """No other ending is one: the message is refused as soon as the bare CR or LF is certain, however it is cut."""
    wire = b"Subject: x\r\n\r\nbody" + ending + b"MAIL FROM:<evil@x>\r\n"
    assert dots([wire]) == "bare"
    for at in range(len(wire)):
        assert dots([wire[:at], wire[at:]]) == "bare"
    assert dots([wire[at : at + 1] for at in range(len(wire))]) == "bare"


@given(WIRE, st.randoms(use_true_random=False))
@example(b"\r\r\n.\r\n", random.Random(1))
def test_dots_by_the_book(wire: bytes, rng: random.Random) -> None:
    """Any bytes, cut anywhere, are what reading line by line makes of them."""
    want = by_the_book(wire)
    for pieces in ([wire], cuts(wire, rng), [wire[at : at + 1] for at in range(len(wire))]):
        found = dots(pieces)
        if want == "bare" and found == "unfinished":
            # the last byte may be a CR that is not known to be bare, or an LF after text that is held
            assert wire[-1:] in b"\r\n."
        else:
            assert found == want


def chunks(parts: list[list[bytes]]) -> bytes | str:
    """The text of chunks that each come in pieces."""
    decoder, text = ChunkDecoder(), b""
    try:
        for count, pieces in enumerate(parts, 1):
            decoder.expect(sum(map(len, pieces)), count == len(parts))
            rest: bytes | None = None
            for piece in pieces or [b""]:
                more, rest = decoder.feed(piece)
                text += more
            assert rest == b""
    except BareLineEnd:
        return "bare"
    assert decoder.over
    return text


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        ([b""], b""),
        ([b"a\r\n"], b"a\n"),
        ([b"a"], b"a\n"),
        ([b"a\r", b"\nb\r\n", b""], b"a\nb\n"),
        ([b"a", b""], b"a\n"),
        ([b".\r\n..\r\n"], b".\n..\n"),
        ([b"\r\n.\r\n"], b"\n.\n"),
        ([b"a\r"], "bare"),
        ([b"a\r", b""], "bare"),
        ([b"a\r", b"b"], "bare"),
        ([b"a\n"], "bare"),
        ([b"\n"], "bare"),
    ],
)
def test_chunks(parts: list[bytes], want: bytes | str) -> None:
    """Dots mean nothing; a CRLF may be cut between chunks; what has no last line end gets one."""
    assert chunks([[part] for part in parts]) == want
    assert chunks([[part[at : at + 1] for at in range(len(part))] for part in parts]) == want


@given(st.lists(WIRE, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_chunks_by_the_book(parts: list[bytes], rng: random.Random) -> None:
    """Any chunks, cut anywhere, are their octets with LF for CRLF, or refused."""
    octets = b"".join(parts)
    if re.search(rb"\r(?!\n)|(?<!\r)\n", octets):
        want: bytes | str = "bare"
    else:
        want = octets.replace(b"\r\n", b"\n")
        want += b"\n" if want and not want.endswith(b"\n") else b""
    assert chunks([[part] for part in parts]) == want
    assert chunks([cuts(part, rng) for part in parts]) == want


def test_chunk_leaves_the_rest() -> None:
    """What follows a chunk's octets is the next command's."""
    decoder = ChunkDecoder()
    decoder.expect(3, False)
    assert decoder.feed(b"a\r\nBDAT 0 LAST\r\n") == (b"a\n", b"BDAT 0 LAST\r\n")
    assert not decoder.over
