"""SMTP smuggling (2023): an end of data that one host sees and the next does not, with a second message behind it.

Every known form gets its message refused and its session closed, in one segment and in two; so it yields no message,
and above all no second one.
"""

import pytest

from tests.unit.smtpd.double import Peer, Queue, codes, talk

BEGIN = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@b.example>\r\n"
EVIL = b"MAIL FROM:<admin@b.example>\r\nRCPT TO:<u@b.example>\r\nDATA\r\nSubject: forged\r\n\r\n.\r\n"
ENDINGS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\n\n.\r\n",
    b"\r\r\n.\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\n",
    b"\r\n.\0\n",
    b"\0\n.\r\n",
    b"\n\0.\r\n",
    b"\r\0\n.\r\n",
    b"\r\n.\r\0\n",
]


def refused(wire: bytes, want: list[int]) -> None:
    for at in range(len(BEGIN), len(wire) + 1):
        peer, queue = Peer([wire[:at], wire[at:]] if at < len(wire) else [wire]), Queue()
        talk(peer, queue)
        assert codes(peer.heard) == want
        assert not queue.queued


@pytest.mark.parametrize("ending", ENDINGS)
def test_data(ending: bytes) -> None:
    """In the text after DATA."""
    refused(BEGIN + b"DATA\r\nSubject: x\r\n\r\nbody" + ending + EVIL, [220, 250, 250, 250, 354, 554])


@pytest.mark.parametrize("ending", ENDINGS)
def test_first_line(ending: bytes) -> None:
    """At once after DATA."""
    refused(BEGIN + b"DATA\r\n" + ending + EVIL, [220, 250, 250, 250, 354, 554])


@pytest.mark.parametrize("ending", ENDINGS)
def test_bdat(ending: bytes) -> None:
    """In a chunk, from where the next host might be sent it by DATA."""
    text = b"Subject: x\r\n\r\nbody" + ending + EVIL
    refused(BEGIN + b"BDAT %d LAST\r\n" % len(text) + text + EVIL, [220, 250, 250, 250, 554])


@pytest.mark.parametrize("ending", [b"\r\n.\r\n", b"\r\n..\r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"\r\n. \r\n"])
def test_bdat_with_dots(ending: bytes) -> None:
    """Dots in chunks are text, of one message: they are stuffed again when it is sent on."""
    text = b"Subject: x\r\n\r\nbody" + ending + EVIL
    peer, queue = Peer([BEGIN + b"BDAT %d LAST\r\n" % len(text) + text]), Queue()
    talk(peer, queue)
    assert codes(peer.heard) == [220, 250, 250, 250, 250]
    assert [message for _, _, message in queue.queued] == [text.replace(b"\r", b"")]
