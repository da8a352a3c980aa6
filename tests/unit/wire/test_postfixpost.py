"""What Postfix would have done to mail that it had not looked at yet."""

import random
from collections.abc import Iterator

import pytest

from qm.wire import postfixpost
from qm.wire.record import Malformed

DATE = b"Date: Tue, 24 Nov 2026 00:00:00 -0000\n"
ID = b"Message-ID: <20261124000000.ABC@o.example>\n"
FROM = b"From: ann@o.example\n"
BORN_S = 1795478400


def completed(text: bytes, size: int = 0, sender: bytes = b"ann@o.example") -> bytes:
    pieces: Iterator[bytes] = (
        iter([text]) if not size else iter([text[at : at + size] for at in range(0, len(text), size)])
    )
    return b"".join(postfixpost.completed(pieces, sender, b"ABC", b"o.example", BORN_S))


CASES = {
    b"Subject: x\n\nBcc: body\n": DATE + ID + FROM + b"Subject: x\n\nBcc: body\n",
    b"bcc : a@x,\n\tb@x\nfrom: q\nReturn-Path: <x>\n\nb\n": DATE + ID + b"from: q\n\nb\n",
    b"Date: 1\nMessage-Id: 2\nFrom: 3\n\n": b"Date: 1\nMessage-Id: 2\nFrom: 3\n\n",
    b"no header\n": DATE + ID + FROM + b"\nno header\n",
    b"A: 1\nno field\nBcc: x\n": DATE + ID + FROM + b"A: 1\n\nno field\nBcc: x\n",
    b" not continued\n": DATE + ID + FROM + b"\n not continued\n",
    b"": DATE + ID + FROM,
    b"\nbody": DATE + ID + FROM + b"\nbody",
}


@pytest.mark.parametrize("text", CASES)
def test_header(text: bytes) -> None:
    """The envelope's fields go, with their further lines; what lacks is put in; whatever the pieces, the same."""
    assert completed(text) == CASES[text]
    for size in (1, 2, 7, random.randint(3, 40)):
        assert completed(text, size) == CASES[text]


def test_nobody_is_its_author() -> None:
    """The null sender's mail has an author, too."""
    assert b"From: MAILER-DAEMON\n" in completed(b"\n", sender=b"")


def test_a_header_without_an_end() -> None:
    """It is not looked at for ever: what might be a Bcc would go out."""
    with pytest.raises(Malformed):
        completed(b"A: " + b"x" * 2_000_000, 65536)


def test_qualified() -> None:
    """A name alone gets the origin, the null sender and a whole address nothing."""
    assert [postfixpost.qualified(mailbox, b"o.example") for mailbox in (b"a", b"a@b", b"")] == [
        b"a@o.example", b"a@b", b"",
    ]  # fmt: skip
