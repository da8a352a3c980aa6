"""Submission: what a user may send, under whose name, and how much (RFC 6409)."""

import random

import pytest

from qm.errors import Temporary
from qm.smtpd.rules import Rules
from qm.smtpd.submission import HEADER_MAX
from qm.unix.queueclient import NO_TRACE
from tests.unit.smtpd.double import ENV, RULES, Peer, Queue, Store, codes, submission, talk

RULES_HERE = RULES._replace(authclear=True, databytes=0)
ENV_HERE = {**ENV, b"SUBMISSION": b""}
LOGIN = b"EHLO c.example\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n"
BEGIN = b"MAIL FROM:<ann@b.example>\r\nRCPT TO:<u@elsewhere.example>\r\n"
HEADER = b"Date: x\r\nMessage-ID: <x@y>\r\nFrom: ann@b.example\r\n"


def send(
    wire: bytes, store: Store | None = None, rules: Rules = RULES_HERE, pieces: list[bytes] | None = None
) -> tuple[list[int], Queue]:
    """What a session that has logged in hears to *wire*, and what it queues."""
    peer, queue = Peer([LOGIN, *(pieces or [wire])]), Queue()
    talk(peer, queue, rules=rules, env=ENV_HERE, means=submission(store or Store()))
    heard = codes(peer.heard)
    assert heard[:3] == [220, 250, 235]
    return heard[3:], queue


def test_login_comes_first() -> None:
    """Nothing is taken from who has not logged in, and the octets of a BDAT are not commands then (RFC 4954 6)."""
    wire = b"EHLO c\r\n" + BEGIN + b"DATA\r\nBDAT 6 LAST\r\nQUIT\r\nVRFY u\r\nHELP\r\nNOOP\r\nRSET\r\n"
    peer = Peer([wire])
    talk(peer, rules=RULES_HERE, env={**ENV_HERE, b"RELAYCLIENT": b""}, means=submission(Store()))
    assert codes(peer.heard) == [220, 250, 530, 530, 530, 530, 530, 530, 250, 250]


def test_message() -> None:
    """A message is completed on its way, and its body passes as it came."""
    heard, queue = send(BEGIN + b"DATA\r\nSubject: x\r\nTo: bob\r\nBcc: c@d\r\n\r\nBcc: body\r\n..\r\n.\r\nQUIT\r\n")
    assert heard == [250, 250, 354, 250, 221]
    [(trace, envelope, text)] = queue.queued
    assert trace.head.endswith(b" with ESMTPA")
    assert (envelope.sender, envelope.client, envelope.protocol) == (b"ann@b.example", b"192.0.2.1", b"ESMTPA")
    header, _, body = text.partition(b"\n\n")
    assert body == b"Bcc: body\n.\n"
    names = [line.partition(b":")[0] for line in header.split(b"\n")]
    assert names == [b"Date", b"Message-ID", b"From", b"Subject", b"To"]
    assert b"To: bob@b.example" in header


def test_cuts_do_not_matter() -> None:
    """However a message is cut, the same is queued."""
    wire = BEGIN + b"DATA\r\n" + HEADER + b"To: bob\r\n cc\r\nBcc: x\r\n\r\nbody\r\n\r\n.\r\n"
    want = send(wire)[1].queued[0][2]
    for seed in range(60):
        rng = random.Random(seed)
        cuts = sorted(rng.randrange(len(wire)) for _ in range(rng.randrange(1, 9)))
        pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) if a < b]
        assert send(b"", pieces=pieces)[1].queued[0][2] == want
    assert send(b"", pieces=[wire[at : at + 1] for at in range(len(wire))])[1].queued[0][2] == want


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (HEADER, HEADER),
        (HEADER + b"\r\n", HEADER + b"\r\n"),
        (HEADER + b"no header\r\n", HEADER + b"\r\nno header\r\n"),
        (HEADER + b"\r\n\r\n", HEADER + b"\r\n\r\n"),
    ],
)
def test_where_the_header_ends(message: bytes, want: bytes) -> None:
    """A header ends at an empty line, at the end, or at a line that is no field; then an empty line is put in."""
    for wire in (b"DATA\r\n" + message + b".\r\n", b"BDAT %d LAST\r\n%b" % (len(message), message)):
        [(_, _, text)] = send(BEGIN + wire)[1].queued
        assert text == want.replace(b"\r\n", b"\n")


def test_nothing_but_the_end() -> None:
    """An empty message gets a header."""
    [(_, _, text)] = send(BEGIN + b"DATA\r\n.\r\n")[1].queued
    assert text.endswith(b"\nFrom: ann@b.example\n")


def test_a_sender_that_is_not_yours() -> None:
    """Envelope sender, From and Sender must be the login's; what is refused is not queued, and the session goes on."""
    heard, queue = send(
        b"MAIL FROM:<bob@b.example>\r\nRCPT TO:<u@b.example>\r\n"
        + (BEGIN + b"DATA\r\nFrom: boss@b.example\r\n\r\nx\r\n.\r\n")
        + (BEGIN + b"DATA\r\nFrom: ann@b.example\r\nSender: boss@b.example\r\n\r\nx\r\n.\r\n")
        + (BEGIN + b"DATA\r\nFrom: ann@b.example\r\nFrom: boss@b.example\r\n.\r\n")
        + (BEGIN + b"DATA\r\nFrom: boss@b.example\r\n.\r\n")
        + (BEGIN + b"BDAT 26 LAST\r\nFrom: boss@b.example\r\n\r\nabNOOP\r\n")
    )
    assert heard == [
        *[553, 503, 250, 250, 354, 550, 250, 250, 354, 550, 250, 250, 354, 554],
        *[250, 250, 354, 550, 250, 250, 550, 250],
    ]
    assert not queue.queued


def test_the_null_sender() -> None:
    """A receipt has no sender, but it has an author."""
    null = b"MAIL FROM:<>\r\nRCPT TO:<u@elsewhere.example>\r\nDATA\r\n"
    heard, queue = send(null + b"From: ann@b.example\r\n.\r\n" + null + b"Subject: x\r\n.\r\n")
    assert heard == [250, 250, 354, 250, 250, 250, 354, 554]
    assert queue.queued[0][1].sender == b""


def test_bare_names() -> None:
    """Addresses in the envelope are completed; postmaster is ours (RFC 6409 4.2)."""
    wire = b"MAIL FROM:<ann>\r\nRCPT TO:<bob>\r\nRCPT TO:<c@host>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n.\r\n"
    [(_, envelope, _)] = send(wire)[1].queued
    assert envelope.sender == b"ann@b.example"
    addresses = [recipient.address for recipient in envelope.recipients]
    assert addresses == [b"bob@b.example", b"c@host.example", b"Postmaster@mx.example"]


def test_long_header() -> None:
    """A header that is too long to be looked at is refused, and said to be; a long body is not held back."""
    line = b"X: " + b"x" * 990 + b"\r\n"
    lines = line * (HEADER_MAX // len(line) + 1)
    pieces = [lines[at : at + 60000] for at in range(0, len(lines), 60000)]
    heard, queue = send(b"", pieces=[BEGIN + b"DATA\r\n", *pieces, b"\r\n.\r\nNOOP\r\n"])
    assert heard == [250, 250, 354, 552, 250]
    heard, queue = send(b"", pieces=[BEGIN + b"DATA\r\n" + HEADER + b"\r\n", *pieces, b".\r\n"])
    assert heard == [250, 250, 354, 250]
    assert queue.largest_piece <= 65536
    assert len(queue.queued[0][2]) > HEADER_MAX


def test_utf8() -> None:
    """An author in UTF-8 needs SMTPUTF8 (RFC 6531); 8-bit text elsewhere passes as it is."""
    utf8 = "From: jörg@b.example\r\n".encode()
    text = "From: =?utf-8?q?J?= <ann@b.example>\r\nSubject: Grüße\r\n\r\nüü\r\n".encode()
    heard, queue = send(BEGIN + b"DATA\r\n" + utf8 + b".\r\n" + BEGIN + b"DATA\r\n" + text + b".\r\n")
    assert heard == [250, 250, 354, 550, 250, 250, 354, 250]
    assert queue.queued[0][2].endswith(text.replace(b"\r\n", b"\n"))


def test_limit() -> None:
    """Over a limit messages are taken and marked as held, and postmaster is told once: who, from where, what to do."""
    store = Store(limit=1)
    message = BEGIN + b"DATA\r\n" + HEADER + b".\r\n"
    heard, queue = send(message * 3, store)
    assert heard == [250, 250, 354, 250] * 3
    assert store.spent == [(1, {b"elsewhere.example"})] * 3
    (_, first, _), (trace, envelope, text), (_, second, _), (_, third, _) = queue.queued
    assert [(mail.sender, mail.held, mail.login) for mail in (first, second, third)] == [
        (b"ann@b.example", b"", b""),
        (b"ann@b.example", b"limitmessages", b"ann"),
        (b"ann@b.example", b"limitmessages", b"ann"),
    ]
    assert trace == NO_TRACE
    assert (envelope.sender, [r.address for r in envelope.recipients]) == (b"", [b"postmaster@mx.example"])
    assert b"\nSubject: ann has reached a limit\n" in text and b"(limitmessages)" in text
    assert b"from <ann@b.example>, and came from 192.0.2.1.\n" in text and b"qm hold release ID" in text


def test_userd_out_of_reach() -> None:
    """When userd cannot say whose an address is, that is temporary, in the envelope, at DATA and in the header."""

    class Tired(Store):
        def sender(self, *_: object) -> "None":  # type: ignore[override]
            raise Temporary("cannot look up users now")

    assert send(BEGIN, Tired())[0] == [451, 503]
    null = b"MAIL FROM:<>\r\nRCPT TO:<u@b.example>\r\nDATA\r\n" + HEADER + b".\r\nNOOP\r\n"
    heard, queue = send(null, Tired())
    assert heard == [250, 250, 354, 451, 250]
    assert not queue.queued


def test_hidden_client() -> None:
    """With hideclient neither Received nor the name of HELO tells where the author is."""
    message = BEGIN + b"DATA\r\n" + HEADER + b".\r\n"
    [(trace, _, _)] = send(message, rules=RULES_HERE._replace(hideclient=True))[1].queued
    assert trace.head == b"Received: from submission (hidden)\n  by mx.example with ESMTPA"


SMUGGLED = b"MAIL FROM:<ann@b.example>\r\nRCPT TO:<u@b.example>\r\nDATA\r\nFrom: boss@b.example\r\n\r\n.\r\n"


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\n"])
def test_smuggling(ending: bytes) -> None:
    """A second message within the first is refused here, too, with both, whether the header is over or not."""
    for start in (HEADER, HEADER + b"\r\nx"):
        wire = BEGIN + b"DATA\r\n" + start + ending + SMUGGLED
        for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
            heard, queue = send(b"", pieces=pieces)
            assert heard == [250, 250, 354, 554]
            assert not queue.queued
