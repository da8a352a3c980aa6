"""smtpd's sessions: what is answered, what is queued, and what is left when something breaks."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm.errors import Permanent, QmError, Temporary
from qm.unix.channel import Gone, TimedOut
from qm.wire.envelope import Envelope, Recipient
from tests.unit.smtpd.double import ENV, RULES, Peer, Queue, Users, codes, talk

BEGIN = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@b.example>\r\n"
DATA = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"
TROUBLE = Temporary("the queue is out of order", detail="/var/qm/queue: secret")


def test_message() -> None:
    """A message goes into the queue with our Received field, and the answer names its ID."""
    peer, queue = Peer([BEGIN, b"DATA\r\n", b"Subject: x\r\n\r\nbody\r\n.\r\n", b"QUIT\r\n"]), Queue()
    assert talk(peer, queue) == 0
    assert peer.writes[0] == b"220 mx.example ESMTP\r\n"
    assert peer.writes[1] == (
        b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n"
        b"250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n"
    )
    assert peer.writes[2].startswith(b"354 ")
    assert re.fullmatch(rb"250 2\.0\.0 ok [0-9]{10} id 0123456789abcdefgh\r\n", peer.writes[3])
    assert peer.writes[4] == b"221 2.0.0 mx.example\r\n"
    [(trace, envelope, text)] = queue.queued
    assert trace.head == b"Received: from c.example (client.example [192.0.2.1])\n  by mx.example with ESMTP"
    assert trace.tail == b"\n  for <u@b.example>"
    assert envelope == Envelope(b"a@b", (Recipient(b"u@b.example"),), b"192.0.2.1", b"ESMTP")
    assert text == b"Subject: x\n\nbody\n"


def test_envelope() -> None:
    """What the sender asked for is kept in the envelope; with two recipients none is named in Received."""
    wire = (
        b"EHLO c\r\nMAIL FROM:<a@b> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x\r\n"
        b"RCPT TO:<u@b.example> NOTIFY=NEVER\r\nRCPT TO:<v@b.example> ORCPT=rfc822;v@b\r\nDATA\r\n.\r\nQUIT\r\n"
    )
    queue = Queue()
    talk(Peer([wire]), queue)
    [(trace, envelope, text)] = queue.queued
    recipients = (Recipient(b"u@b.example", b"NEVER"), Recipient(b"v@b.example", b"", b"rfc822;v@b"))
    assert envelope == Envelope(b"a@b", recipients, b"192.0.2.1", b"UTF8SMTP", True, True, b"HDRS", b"x")
    assert (trace.tail, text) == (b"", b"")


def test_old_client() -> None:
    """HELO, or nothing, is enough (qmail.md 15.4)."""
    queue = Queue()
    talk(Peer([b"MAIL FROM:<>\r\nRCPT TO:<u@b.example>\r\n", DATA, b"HELO c\r\n", BEGIN[16:], DATA]), queue)
    assert [trace.head for trace, _, _ in queue.queued] == [
        b"Received: from unknown (client.example [192.0.2.1])\n  by mx.example with SMTP",
        b"Received: from c (client.example [192.0.2.1])\n  by mx.example with SMTP",
    ]


def test_second_mail_begins_anew() -> None:
    """The recipients of a transaction that MAIL or RSET ended do not get the next message."""
    queue = Queue()
    talk(
        Peer(
            [
                BEGIN
                + b"MAIL FROM:<x@y>\r\nRCPT TO:<v@b.example>\r\n"
                + DATA
                + BEGIN
                + b"RSET\r\nMAIL FROM:<>\r\n"
                + DATA
            ]
        ),
        queue,
    )
    [(_, envelope, _)] = queue.queued
    assert (envelope.sender, [r.address for r in envelope.recipients]) == (b"x@y", [b"v@b.example"])


@pytest.mark.parametrize(
    ("answer", "code"),
    [((b"no", b"nobody"), 550), ((b"later", b"busy"), 451), (Temporary("cannot look up users now"), 451)],
)
def test_mailbox(answer: tuple[bytes, bytes] | QmError, code: int) -> None:
    """An unknown mailbox is refused at RCPT, with 550 only if userd is sure, relay client or not."""
    wire = b"MAIL FROM:<>\r\nRCPT TO:<nobody@b.example>\r\n"
    for env in (ENV, {**ENV, b"RELAYCLIENT": b""}):
        peer = Peer([wire, b"QUIT\r\n"])
        talk(peer, users=Users({b"nobody@b.example": answer}), env=env)
        assert codes(peer.heard) == [220, 250, code, 221]


def test_strangers_ask_nothing() -> None:
    """Addresses that are not ours are refused without asking userd."""
    users = Users()
    peer = Peer([b"MAIL FROM:<>\r\nRCPT TO:<u@elsewhere.example>\r\n"])
    talk(peer, users=users)
    assert codes(peer.heard) == [220, 250, 553]
    assert users.asked == []


def test_who_may_not_ask() -> None:
    """NOUSERCHECK takes recipients without asking userd, and opens no relay."""
    users = Users()
    peer = Peer([b"MAIL FROM:<>\r\nRCPT TO:<u@b.example>\r\nRCPT TO:<u@elsewhere.example>\r\nQUIT\r\n"])
    talk(peer, users=users, env={**ENV, b"NOUSERCHECK": b""})
    assert codes(peer.heard) == [220, 250, 250, 553, 221]
    assert users.asked == []


def test_broken_morercpthosts() -> None:
    """A cdb that cannot be read makes recipients wait; those that do not need it are served."""

    class Broken(frozenset[bytes]):
        def __contains__(self, key: object) -> bool:
            raise Temporary("cannot read a database")

    peer = Peer([b"MAIL FROM:<>\r\nRCPT TO:<u@elsewhere.example>\r\nRCPT TO:<u@b.example>\r\n"])
    talk(peer, more=Broken())
    assert codes(peer.heard) == [220, 250, 451, 250]


def test_queue_out_of_reach() -> None:
    """A queue failure is temporary, and said before 354; nothing of why is told."""
    for start in (b"DATA\r\n", b"BDAT 4 LAST\r\nab\r\n"):
        peer = Peer([BEGIN + start + b"NOOP\r\n"])
        talk(peer, Queue(unreachable=TROUBLE))
        assert codes(peer.heard) == [220, 250, 250, 250, 451, 250]
        assert b"secret" not in peer.heard


def test_queue_full() -> None:
    """A queue that fails while the message comes is told of at its end; the session goes on."""
    for message in (DATA, b"BDAT 4\r\nab\r\nBDAT 4 LAST\r\nab\r\n"):
        peer = Peer([BEGIN + message + b"NOOP\r\n"])
        talk(peer, Queue(full=TROUBLE))
        assert codes(peer.heard)[4:] == ([354, 451, 250] if message is DATA else [451, 503, 250])


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (TROUBLE, b"451 4.3.0 the queue is out of order\r\n"),
        (Permanent("an address is too long", status="1.3"), b"554 5.1.3 an address is too long\r\n"),
        (Temporary("two\r\nlines"), b"451 4.3.0 two??lines\r\n"),
    ],
)
def test_queue_refuses(error: QmError, want: bytes) -> None:
    """The queue's no is the peer's, in its public words and on one line."""
    peer = Peer([BEGIN, DATA, b"QUIT\r\n"])
    talk(peer, Queue(refusal=error))
    assert peer.writes[-2].endswith(want)


def test_bug() -> None:
    """A bug of ours is temporary to the peer, ends the session, and is raised."""
    peer = Peer([BEGIN, DATA, b"QUIT\r\n"])
    with pytest.raises(ZeroDivisionError):
        talk(peer, Queue(refusal=ZeroDivisionError("secret")))
    assert codes(peer.heard)[-1] == 421
    assert b"secret" not in peer.heard


def test_too_big() -> None:
    """A message over databytes is refused at MAIL when it says so, else while it comes; nothing is kept of it."""
    peer, queue = (
        Peer([b"MAIL FROM:<> SIZE=1001\r\n", BEGIN + b"DATA\r\n" + b"x" * 98 + b"\r\n"] + [b"x" * 98 + b"\r\n"] * 20),
        Queue(),
    )
    talk(peer, queue)
    assert codes(peer.heard) == [220, 552, 250, 250, 250, 354]
    peer = Peer([BEGIN + b"DATA\r\n"] + [b"x" * 98 + b"\r\n"] * 20 + [b".\r\nNOOP\r\n"])
    talk(peer, queue)
    assert codes(peer.heard)[4:] == [354, 552, 250]
    assert not queue.queued


def test_after_a_refused_message() -> None:
    """The message after one that was refused is a message like any other."""
    queue = Queue()
    big = (b"x" * 98 + b"\r\n") * 20
    peer = Peer([BEGIN + b"DATA\r\n" + big + b".\r\n" + BEGIN + b"BDAT 2000 LAST\r\n" + big + BEGIN + DATA])
    talk(peer, queue)
    assert [code for code in codes(peer.heard) if code != 250] == [220, 354, 552, 552, 354]
    assert [text for _, _, text in queue.queued] == [b"Subject: x\n\nbody\n"]


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO c\r\n"])
def test_given_up_in_chunks(command: bytes) -> None:
    """A message in chunks that is given up is thrown away at once, and leaves nothing to the next."""
    queue = Queue()

    def pieces() -> Iterator[bytes]:
        yield BEGIN + b"BDAT 4\r\nabc\r"
        assert len(queue.open) == 1
        yield command
        assert not queue.open
        yield BEGIN + b"BDAT 3 LAST\r\nd\r\n"

    talk(Peer(pieces()), queue)
    assert [text for _, _, text in queue.queued] == [b"d\n"]


def test_just_small_enough() -> None:
    """databytes counts the bytes that are stored: LF for CRLF."""
    queue = Queue()
    talk(Peer([BEGIN + b"DATA\r\n" + (b"x" * 99 + b"\r\n") * 10 + b".\r\n"]), queue)
    assert len(queue.queued[0][2]) == 1000


def test_endless_message() -> None:
    """A message of 10 GB is refused while it streams, and then cut off."""

    def pieces() -> Iterator[bytes]:
        yield BEGIN + b"DATA\r\n"
        for _ in range(160_000):
            yield block

    block = b"x" * 65534 + b"\r\n"
    peer, queue = Peer(pieces()), Queue()
    talk(peer, queue)
    assert codes(peer.heard)[4:] == [354, 552]
    assert not queue.queued


def test_hops() -> None:
    """A message that has come too often is refused for good."""
    queue = Queue()
    for hops, code in ((2, 250), (3, 554)):
        peer = Peer([BEGIN, b"DATA\r\n" + b"Received: x\r\n" * hops + b"\r\n" + b"Received: body\r\n" * 5 + b".\r\n"])
        talk(peer, queue)
        assert codes(peer.heard)[-1] == code
    assert len(queue.queued) == 1


def test_recipients() -> None:
    """100,000 recipients get what fits, then 452 for as many more, then errors, and then the session ends."""
    users = Users()
    peer = Peer(
        [b"MAIL FROM:<>\r\n" + b"RCPT TO:<u@b.example>\r\n" * 2000] + [b"RCPT TO:<u@b.example>\r\n" * 2000] * 49
    )
    assert talk(peer, users=users) == 0
    assert codes(peer.heard) == [220, 250, 250, 250, 250, 250, 452, 452, 452, 452] + [552] * 20 + [421]
    assert len(users.asked) == 4


@pytest.mark.parametrize("message", [DATA, b"BDAT 14\r\nSubject: x\r\n\r\nBDAT 6 LAST\r\nbody\r\n"])
@pytest.mark.parametrize("last", [b"", Gone("reset"), TimedOut()])
def test_cut_off_anywhere(message: bytes, last: bytes | Gone) -> None:
    """A client that goes anywhere before the end leaves nothing."""
    wire = BEGIN + message
    for at in range(len(wire)):
        queue = Queue()
        assert talk(Peer([wire[:at]] if at else [], last), queue) == 111
        assert not queue.queued
    queue = Queue()
    assert talk(Peer([wire], last), queue) == 111
    assert len(queue.queued) == 1


def test_peer_that_does_not_read() -> None:
    """A client that is gone when we answer leaves nothing, but for a message that was promised before."""
    for writes in range(8):
        queue = Queue()
        assert (
            talk(Peer([BEGIN, b"DATA\r\n", b"x\r\n.\r\n", b"NOOP\r\n", b"NOOP\r\n"], gone_after=writes), queue) == 111
        )
        assert len(queue.queued) == (writes >= 3)


def test_silent_peer() -> None:
    """A client that says nothing is told so with 421 and left."""
    peer = Peer([BEGIN], TimedOut())
    assert talk(peer) == 111
    assert peer.writes[-1] == b"421 4.4.2 you have been silent for too long\r\n"


def test_timeouts() -> None:
    """timeoutdata counts while a message comes, timeoutsmtpd between commands."""
    peer = Peer([BEGIN, b"DATA\r\n", b"x\r\n", b"y\r\n", b".\r\n", b"QUIT\r\n"])
    talk(peer)
    assert peer.timeouts_s == [180, 300]


def test_log(capfd: pytest.CaptureFixture[str]) -> None:
    """A line for each thing that happened, each value clean, none a password."""
    wire = (
        BEGIN.replace(b"c.example", b"c d\xff")
        + b"RCPT TO:<x@y>\r\nAUTH PLAIN secret\r\nsecret\r\n"
        + DATA
        + b"QUIT\r\n"
    )
    peer = Peer([wire])
    talk(peer)
    lines = capfd.readouterr().err.splitlines()
    assert [re.sub(r"^qm-smtpd: [0-9]+ ", "", re.sub(r"[0-9.]+$", "N", line)) for line in lines] == [
        "connect ip=192.0.2.1 host=client.example relay=no",
        "helo name=c_d?",
        "mail from=a@b code=250 why=ok",
        "rcpt to=u@b.example code=250 why=rcpthosts:b.example",
        "rcpt to=x@y code=553 why=rcpthosts",
        "rejected line=AUTH reply=command_not_implemented",
        "rejected line=? reply=command_not_recognized",
        "message id=0123456789abcdefgh code=250 size=17 recipients=1 why=ok",
        f"end how=quit in={len(wire)} out={len(peer.heard)} seconds=N",
    ]


def test_small_pieces() -> None:
    """A message is passed on as it comes, never gathered here."""
    block = b"x" * 65534 + b"\r\n"
    queue = Queue()
    talk(Peer([BEGIN + b"DATA\r\n"] + [block] * 100 + [b".\r\n"]), queue, rules=RULES._replace(databytes=0))
    assert queue.largest_piece <= 65536
    assert queue.queued[0][2] == block.replace(b"\r", b"") * 100


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    BEGIN,
                    DATA,
                    b"BDAT 3\r\n",
                    b"BDAT 2 LAST\r\n",
                    b"\r\n",
                    b"RSET\r\n",
                    b".\r\n",
                    b"\n",
                    b"\0",
                    b"QUIT\r\n",
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=12,
    ),
    st.sampled_from([{}, {"unreachable": TROUBLE}, {"full": TROUBLE}, {"refusal": TROUBLE}]),
)
def test_any_bytes(pieces: list[bytes], failures: dict[str, Temporary]) -> None:
    """Any bytes get replies, whatever fails; one 250 for each message that is queued, whole and byte by byte."""
    wire = b"".join(pieces)
    heard = []
    for cut in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        peer, queue = Peer([piece for piece in cut if piece]), Queue(**failures)  # type: ignore[arg-type]
        talk(peer, queue)
        assert peer.heard.count(b" id 0123456789abcdefgh\r\n") == len(queue.queued)
        heard.append(re.sub(rb"ok [0-9]+ id", b"ok N id", peer.heard))
    codes(heard[0])
    assert heard[0] == heard[1]
