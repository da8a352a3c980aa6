"""Message text on its way out, and back through the server's decoders."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qm.wire.smtpbody import END, BodyEncoder
from qm.wire.smtpdata import ChunkDecoder, DotDecoder

PIECES = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\n.", b"\n.\n", b"\r\n.\r\n", b"ab\n", b"\xff"])
TEXT = st.one_of(st.lists(PIECES, max_size=15).map(b"".join), st.binary(max_size=30))


def encode(pieces: list[bytes], *, dots: bool = True) -> bytes:
    encoder = BodyEncoder(dots=dots)
    return b"".join([encoder.feed(piece) for piece in pieces]) + encoder.finish()


def cut(text: bytes, rng: random.Random) -> list[bytes]:
    marks = sorted(rng.randint(0, len(text)) for _ in range(4))
    return [text[a:b] for a, b in zip([0, *marks], [*marks, len(text)], strict=True)]


def normal(text: bytes) -> bytes:
    """What the next host shall have: lines where we have them, the last one ended."""
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text if not text or text.endswith(b"\n") else text + b"\n"


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b""),
        (b"a\n", b"a\r\n"),
        (b"a", b"a\r\n"),
        (b".\n", b"..\r\n"),
        (b"..\n.a", b"...\r\n..a\r\n"),
        (b"a.\n", b"a.\r\n"),
        (b"a\r\nb\n", b"a\r\nb\r\n"),
        (b"a\rb\n", b"a\r\nb\r\n"),
        (b"a\r.\r\nb\n", b"a\r\n..\r\nb\r\n"),
        (b"a\n.\nMAIL FROM:<x@y>\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n"),
        (b"a\r", b"a\r\n"),
        (b"\r\r\n", b"\r\n\r\n"),
    ],
)
def test_examples(text: bytes, wire: bytes) -> None:
    """Lines end in CRLF, dots are doubled, a missing last line end is added."""
    assert encode([text]) == wire


@given(TEXT, st.randoms(use_true_random=False), st.booleans())
@example(b"a\r\nb", random.Random(1), True)
def test_however_it_is_cut(text: bytes, rng: random.Random, dots: bool) -> None:
    """The same text gives the same bytes, in whichever pieces it comes."""
    whole = encode([text], dots=dots)
    assert encode(cut(text, rng), dots=dots) == whole
    assert encode([bytes([byte]) for byte in text], dots=dots) == whole


@given(TEXT)
def test_no_bare_line_end_leaves(text: bytes) -> None:
    """Nothing leaves that a server could take for an end of data, but the end (SMTP smuggling)."""
    wire = encode([text])
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert b"\n" not in wire.replace(b"\r\n", b"")
    assert b"\r\n.\r\n" not in b"\r\n" + wire


@given(TEXT)
def test_the_server_reads_what_we_had(text: bytes) -> None:
    """smtpd's decoder gives back our lines, and finds the end where we set it."""
    assert DotDecoder().feed(encode([text]) + END) == (normal(text), b"")


@given(TEXT)
def test_chunks_too(text: bytes) -> None:
    """By BDAT as well."""
    wire = encode([text], dots=False)
    decoder = ChunkDecoder()
    decoder.expect(len(wire), last=True)
    assert decoder.feed(wire + b"QUIT\r\n") == (normal(text), b"QUIT\r\n")
