"""The text of a message in QMTP: its first byte says which line ends it has (qmail.md 16.7).

LF: the rest has LF already.  CR: each CR LF of the rest is a line end, and a CR that no LF follows is itself.
"""

from collections.abc import Iterable, Iterator

from qm.wire.record import Malformed


def decoder(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text, with LF, as *pieces* come, however they are cut; raises Malformed for another first byte or none."""
    source = iter(pieces)
    first = next(source, b"")
    if first[:1] == b"\n":
        yield first[1:]
        yield from source
    elif first[:1] == b"\r":
        yield from _plain(first[1:], source)
    else:
        raise Malformed("a message that begins with neither LF nor CR")


def _plain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    held = first
    for piece in rest:
        whole = held + piece
        held = b"\r" if whole.endswith(b"\r") else b""
        yield whole[: len(whole) - len(held)].replace(b"\r\n", b"\n")
    yield held.replace(b"\r\n", b"\n")
