"""A delivery's message, by its descriptor."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qm.errors import Temporary
from qm.remote.message import PIECE, Message


@contextmanager
def message(text: bytes) -> Iterator[Message]:
    fd = os.memfd_create("message")
    os.write(fd, text)
    try:
        yield Message(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces(size: int) -> None:
    """The pieces are the message, whatever the descriptor's offset, again and again; only the last one says so."""
    text = (b"0123456\n" * (size // 8 + 1))[:size]
    with message(text) as made:
        for _ in range(2):
            pieces = list(made.pieces())
            assert b"".join(piece for piece, _ in pieces) == text
            assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
        assert made.wire_size() == size + text.count(b"\n")


def test_a_message_that_shrinks() -> None:
    """A message that is shorter than it was is not sent as if it were whole."""
    fd = os.memfd_create("message")
    os.write(fd, b"x" * (PIECE + 10))
    made = Message(fd)
    os.ftruncate(fd, PIECE + 5)
    with pytest.raises(Temporary):
        list(made.pieces())
    os.close(fd)


def test_unreadable() -> None:
    """A descriptor that cannot be read is a temporary failure."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    with pytest.raises(Temporary):
        Message(-1)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("text", "utf8"),
    [
        (b"Subject: x\n\nbody\n", False),
        ("Subject: ü\n\nbody\n".encode(), True),
        ("Subject: x\n\nbüdy\n".encode(), False),
        ("Subject: ü".encode(), True),
        (b"Subject: x", False),
        (b"x" * (PIECE + 1), True),  # a header that has no end is not searched for ever
    ],
)
def test_utf8_header(text: bytes, utf8: bool) -> None:
    """Only the header decides whether SMTPUTF8 is really needed."""
    with message(text) as made:
        assert made.has_utf8_header() is utf8
