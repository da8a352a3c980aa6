"""Queue files of Postfix."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import postfixqueue
from qm.wire.record import Malformed


def record(kind: bytes, data: bytes = b"") -> bytes:
    length, groups = len(data), b""
    while length >= 128:
        groups, length = groups + bytes([length & 127 | 128]), length >> 7
    return kind + groups + bytes([length]) + data


def file(*records: tuple[bytes, bytes]) -> bytes:
    return b"".join(record(kind, data) for kind, data in records)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


HEAD = ((b"C", b"            270             259               1               2             270               0"),
        (b"T", b"1795513426 131054"), (b"S", b"s@s"))  # fmt: skip
BODY = ((b"M", b""), (b"N", b"A: b"), (b"N", b""), (b"L", b"lo" * 500), (b"N", b"ng"), (b"X", b""), (b"E", b""))


def test_recipients() -> None:
    """Those who wait, with what was said of each; done ones are counted, cancelled and original ones left out."""
    data = file(
        *HEAD, (b"A", b"notify_flags=10"), (b"A", b"dsn_orig_rcpt=rfc822;o+@x"), (b"O", b"o@x"), (b"R", b"a@x"),
        (b"A", b"notify_flags=1"), (b"D", b"b@x"), (b"R", b"c d@x"), (b"/", b"e@x"), (b"A", b"encoding=8bit"), *BODY,
    )  # fmt: skip
    mail = postfixqueue.read(reader(data))
    first, second = mail.envelope.recipients
    assert first == (b"a@x", b"SUCCESS,DELAY", b"rfc822;o+2B@x")
    assert second == (b"c d@x", b"", b"")
    assert (mail.envelope.sender, mail.done, mail.arrived_ns) == (b"s@s", 1, 1795513426131054000)
    assert mail.envelope.eight_bit
    assert b"".join(postfixqueue.message(reader(data))) == b"A: b\n\n" + b"lo" * 500 + b"ng\n"


def test_failures_that_nobody_knows_of() -> None:
    """Who is done because he failed, and whose failure stands in bounce/, waits again."""
    head = file(*HEAD, (b"R", b"a@x"))
    data = head + file((b"D", b"b@x"), (b"D", b"c@x"), *BODY)
    untold = postfixqueue.bounced(b"\n<b@x>: no\nrecipient=b@x\noffset=%d\nreason=offset=7\n" % len(head))
    mail = postfixqueue.read(reader(data), untold)
    assert [who.address for who in mail.envelope.recipients] == [b"a@x", b"b@x"]
    assert (mail.done, mail.failed) == (1, 1)


def test_recipients_behind_the_message() -> None:
    """sendmail -t puts them there."""
    data = file(*HEAD, *BODY[:-1], (b"R", b"a@x"), (b"E", b""))
    assert [who.address for who in postfixqueue.read(reader(data)).envelope.recipients] == [b"a@x"]


def test_pointers() -> None:
    """A pointer is followed; one to 0 is none."""
    head = file(*HEAD, (b"p", b"%15d" % 0), (b"R", b"a@x"))
    jump = len(head) + len(record(b"p", b"%15d" % 0)) + 9
    data = head + record(b"p", b"%15d" % jump) + b"123456789" + file(*BODY)
    assert postfixqueue.read(reader(data)).envelope.recipients[0].address == b"a@x"


@pytest.mark.parametrize(
    "records",
    [
        (*HEAD[:2], *BODY),
        (*HEAD, (b"K", b""), *BODY),
        (*HEAD, (b">", b"x@y"), *BODY),
        (*HEAD, (b"Q", b""), *BODY),
        (*HEAD, (b"A", b"x"), *BODY),
        (*HEAD, (b"A", b"notify_flags=99"), (b"R", b"a"), *BODY),
        (*HEAD, (b"M", b""), (b"R", b"a"), *BODY[1:]),
        (*HEAD, (b"E", b"")),
        (*HEAD, (b"p", b"x"), *BODY),
    ],
)
def test_what_is_refused(records: tuple[tuple[bytes, bytes], ...]) -> None:
    """A file that is killed, redirected, or not understood is not taken."""
    with pytest.raises(Malformed):
        postfixqueue.read(reader(file(*records)))


def test_a_circle() -> None:
    """Pointers that go in circles come to an end."""
    data = file(*HEAD, (b"p", b"%15d" % len(file(*HEAD))))
    with pytest.raises(Malformed, match="circles"):
        postfixqueue.read(reader(data))


def test_a_circle_with_recipients() -> None:
    """... also where recipients are added by each of them."""
    start = len(file(*HEAD))
    data = file(*HEAD, (b"R", b"a"), (b"p", b"%15d" % start))
    with pytest.raises(Malformed):
        postfixqueue.read(reader(data))


def test_cut_anywhere() -> None:
    """A file that lacks its end is not taken."""
    data = file(*HEAD, (b"R", b"a@x"), *BODY)
    postfixqueue.read(reader(data))
    for end in range(len(data)):
        with pytest.raises(Malformed):
            postfixqueue.read(reader(data[:end]))


def _cuts(data: bytes) -> Iterator[bytes]:
    yield data
    yield file(*HEAD) + data


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a message or Malformed."""
    for text in _cuts(data):
        try:
            postfixqueue.read(reader(text))
            b"".join(postfixqueue.message(reader(text)))
        except Malformed:
            pass
