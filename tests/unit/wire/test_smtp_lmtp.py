"""The server's half of LMTP: LHLO, and an answer to a message for each recipient (RFC 2033)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.smtp import Server
from qm.wire.smtpevent import ANSWERED, END, NEED_DATA, End, Event, Rcpt, Start
from qm.wire.smtplimits import Limits
from qm.wire.smtpreply import GO, OK, RECIPIENT_OK, TOO_BIG, TROUBLE, Reply

BEGIN = b"LHLO c\r\nMAIL FROM:<a@b>\r\n"
NO = Reply(550, b"5.1.1", b"no such mailbox here")


def answer(event: Event) -> Reply:
    """Recipients that begin with x are refused."""
    if isinstance(event, Start):
        return GO
    if isinstance(event, Rcpt):
        return NO if event.recipient.startswith(b"x") else RECIPIENT_OK
    return OK


def talk(said: bytes, end: Reply = OK, start: Reply = GO, refusal: Reply | None = None) -> list[int]:
    """The codes of all replies; *refusal* comes in the middle of a message."""
    server, heard = Server(Limits(), lmtp=True), b""
    server.receive(said)
    ended = False
    while (event := server.next_event()) is not END:
        if event is NEED_DATA:
            if ended:
                break
            ended = True
            server.receive(b"")
        elif type(event) in ANSWERED:
            server.reply(end if isinstance(event, End) else start if isinstance(event, Start) else answer(event))
            if refusal and isinstance(event, Start):
                server.refuse(refusal)
    heard += server.outgoing()
    return [int(line[:3]) for line in heard.splitlines()]


@pytest.mark.parametrize("greeting", [b"HELO c", b"EHLO c"])
def test_lhlo_only(greeting: bytes) -> None:
    """HELO and EHLO are no words of LMTP, nor is LHLO one of SMTP (RFC 2033 4.1)."""
    assert talk(greeting + b"\r\nLHLO c\r\n") == [500, 250]
    server = Server(Limits())
    server.receive(b"LHLO c\r\n")
    server.next_event()
    assert server.outgoing().startswith(b"500 ")


DATA = b"DATA\r\nx\r\n.\r\n"


@pytest.mark.parametrize(
    ("recipients", "want"),
    [
        ((b"a", b"b", b"c"), [250, 250, 250, 354, 250, 250, 250]),
        ((b"a", b"x", b"c"), [250, 550, 250, 354, 250, 250]),
        ((b"a",), [250, 354, 250]),
    ],
)
def test_an_answer_for_each(recipients: tuple[bytes, ...], want: list[int]) -> None:
    """A message is answered once for each recipient that was taken, in the next transaction too."""
    mail = b"MAIL FROM:<a@b>\r\n" + b"".join(b"RCPT TO:<%b@d>\r\n" % name for name in recipients) + DATA
    assert talk(b"LHLO c\r\n" + mail + mail) == [250, 250, *want, 250, *want]


def test_nobody() -> None:
    """DATA without a recipient that was taken is 503 (RFC 2033 4.2)."""
    assert talk(BEGIN + b"RCPT TO:<x@d>\r\nDATA\r\n") == [250, 250, 550, 503]


TWO = BEGIN + b"RCPT TO:<a@d>\r\nRCPT TO:<b@d>\r\n"
TOOK = [250, 250, 250, 250]


def test_refusals() -> None:
    """What is said against a message is said for each recipient; what is said against DATA, once."""
    assert talk(TWO + DATA, end=TROUBLE) == [*TOOK, 354, 451, 451]
    assert talk(TWO + DATA, refusal=TOO_BIG) == [*TOOK, 354, 552, 552]
    assert talk(TWO + b"DATA\r\nNOOP\r\n", start=TROUBLE) == [*TOOK, 451, 250]


def test_chunks() -> None:
    """A chunk is answered once, the last one for each recipient (RFC 2033 4.3)."""
    chunks = b"BDAT 3\r\nx\r\nBDAT 3 LAST\r\ny\r\n"
    assert talk(TWO + chunks + b"NOOP\r\n") == [*TOOK, 250, 250, 250, 250]
    assert talk(TWO + chunks, refusal=TOO_BIG)[:5] == [*TOOK, 552]


def test_what_was_is_over() -> None:
    """After RSET or a refused MAIL nobody of the transaction before is answered for."""
    for end in (b"RSET\r\n", b"MAIL FROM:<\r\n"):
        assert len(talk(TWO + end + b"BDAT 3 LAST\r\nx\r\n")) == len(TOOK) + 2


@given(st.lists(st.sampled_from([TWO, DATA, b"BDAT 1\r\nx", b"BDAT 1 LAST\r\nx", b"RSET\r\n", b"\r\n"]) | st.binary()))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Whatever comes is answered, and comes to an end."""
    talk(b"".join(pieces))
