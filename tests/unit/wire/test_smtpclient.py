"""The client's half of SMTP: what is legal when, what belongs to what, what a server offers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.replies import BadReply, Reply
from qm.wire.smtpclient import Client, Extensions, Step, parse_extensions


def greeted(ehlo: bytes = b"250-x\r\n250 PIPELINING\r\n") -> Client:
    client = Client()
    client.receive(b"220 x\r\n")
    assert client.next_answer()
    client.ehlo(b"me.example")
    client.outgoing()
    client.receive(ehlo)
    assert client.next_answer()
    return client


def test_a_transaction() -> None:
    """Commands leave as one piece when they may, and each answer names the command that it answers."""
    client = greeted()
    client.mail(b"a@b", b" SIZE=3")
    client.rcpt(b"c@d", b"")
    client.data()
    assert client.outgoing() == b"MAIL FROM:<a@b> SIZE=3\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    assert client.outgoing() == b""
    client.receive(b"250 ok\r\n550 no\r\n354 go\r\n")
    answers = [client.next_answer() for _ in range(3)]
    assert [(answer.step, answer.reply.code) for answer in answers if answer] == [
        (Step.MAIL, 250),
        (Step.RCPT, 550),
        (Step.DATA, 354),
    ]
    assert client.awaited is None
    client.ended()
    assert client.awaited is Step.TEXT


@pytest.mark.parametrize("command", ["data", "ended", "mail", "rset"])
def test_nothing_before_hello(command: str) -> None:
    """A command out of order is a bug of ours, and does not leave."""
    client = Client()
    with pytest.raises(KeyError):
        getattr(client, command)(*([b"a", b""] if command == "mail" else []))
    assert client.outgoing() == b""


def test_no_recipient_no_data() -> None:
    """DATA needs a recipient, BDAT too."""
    client = greeted()
    client.mail(b"", b"")
    for command in (client.data, lambda: client.bdat(1, last=True)):
        with pytest.raises(KeyError):
            command()


def test_unasked() -> None:
    """A reply to nothing is a mistake of the server's; what came too early is known before it is read."""
    client = greeted()
    assert not client.unread
    client.receive(b"250 ok\r\n")
    assert client.unread
    with pytest.raises(BadReply):
        client.next_answer()


def test_chunks() -> None:
    """BDAT says its octets, and whether it is the last."""
    client = greeted()
    client.mail(b"", b"")
    client.rcpt(b"c@d", b"")
    client.bdat(5, last=False)
    client.bdat(0, last=True)
    assert client.outgoing().endswith(b"BDAT 5\r\nBDAT 0 LAST\r\n")


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (b"250 x\r\n", Extensions()),
        (b"250-x\r\n250-pipelining\r\n250 8bitmime\r\n", Extensions(pipelining=True, eight_bit=True)),
        (b"250-x\r\n250-SIZE\r\n250 DSN\r\n", Extensions(size=True, dsn=True)),
        (b"250-x\r\n250-SIZE 1000\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n",
         Extensions(size=True, size_max=1000, smtputf8=True, chunking=True)),
        (b"250-x\r\n250-SIZE -1\r\n250-SIZE 9999999999999999999999\r\n250-AUTH A B\r\n250 STARTTLS\r\n",
         Extensions(size=True, starttls=True, auth=(b"A", b"B"))),
        (b"250-PIPELINING\r\n250 x\r\n", Extensions()),  # the first line is its name
    ],
)  # fmt: skip
def test_extensions(lines: bytes, want: Extensions) -> None:
    """What EHLO offers, whatever the case; junk offers nothing."""
    assert parse_extensions(Reply(250, lines)) == want


def test_ignored_extensions() -> None:
    """A keyword that the administrator does not believe is not there."""
    client = Client(frozenset([b"CHUNKING"]))
    client.receive(b"220 x\r\n250-x\r\n250-CHUNKING\r\n250 DSN\r\n")
    client.next_answer()
    client.ehlo(b"me")
    client.next_answer()
    assert client.extensions == Extensions(dsn=True)


def test_helo_after_a_refused_ehlo() -> None:
    """What a refused EHLO said offers nothing."""
    client = greeted(b"502-x\r\n502 PIPELINING\r\n")
    client.helo(b"me")
    assert client.extensions == Extensions()
    assert client.outgoing() == b"HELO me\r\n"


@given(st.binary(max_size=80))
def test_any_ehlo(text: bytes) -> None:
    """Any bytes in an EHLO reply give extensions."""
    assert isinstance(parse_extensions(Reply(250, b"250-x\r\n250-" + text)), Extensions)
