"""The SMTP server protocol: what is legal when, what is answered, and that cuts do not matter."""

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm.wire.smtp import Server
from qm.wire.smtpevent import (
    ANSWERED,
    END,
    NEED_DATA,
    Auth,
    End,
    Event,
    Hello,
    Mail,
    Noop,
    Piece,
    Quit,
    Rcpt,
    Rejected,
    Response,
    Start,
    StartTls,
    Text,
)
from qm.wire.smtplimits import DISCARD_MAX, RESPONSE_MAX, Limits
from qm.wire.smtpreply import GO, OK, TOO_BIG, TROUBLE, Reply
from qm.wire.smtpstate import BEFORE_AUTH, BEFORE_TLS, Bar

Answer = Callable[[Event], Reply]


DEFAULT = Limits()


def yes(event: Event) -> Reply:
    return GO if isinstance(event, Start) else OK


class Events(list[Event]):
    """Events, equal if their kinds are too: as tuples End() and Quit() are the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and list(map(repr, self)) == list(map(repr, other))

    def __contains__(self, event: object) -> bool:
        return repr(event) in map(repr, self)


def talk(
    pieces: Iterable[bytes], answer: Answer = yes, limits: Limits = DEFAULT, bar: Bar | None = None
) -> tuple[Events, bytes]:
    """What a server that is fed *pieces* tells and says; the text of a message in one event."""
    server, said, events = Server(limits, bar), b"", []
    todo = iter([*pieces, b""])
    while True:
        event = server.next_event()
        if event is NEED_DATA:
            said += server.outgoing()
            server.receive(next(todo))
        elif event is END:
            return _joined(events), said + server.outgoing()
        else:
            events.append(event)
            if type(event) in ANSWERED:
                server.reply(answer(event))


def _joined(events: list[Event]) -> Events:
    joined = Events()
    for event in events:
        if isinstance(event, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined


def codes(said: bytes) -> list[int]:
    """The code of each reply."""
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    return [int(line[:3]) for line in lines if line[3:4] == b" "]


BEGIN = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


def test_session() -> None:
    """A message from greeting to farewell."""
    events, said = talk([BEGIN + b"DATA\r\nSubject: x\r\n\r\n..y\r\n.\r\nQUIT\r\nNOOP\r\n"])
    assert events == [
        Hello(b"c", True),
        Mail(b"a@b"),
        Rcpt(b"c@d"),
        Start(),
        Text(b"Subject: x\n\n.y\n"),
        End(),
        Quit(),
    ]
    assert codes(said) == [250, 250, 250, 354, 250, 250]


def test_replies_of_a_batch_leave_together() -> None:
    """What is answered to pipelined commands is sent in one piece, when more is needed (RFC 2920 3.2)."""
    server = Server(Limits())
    server.receive(BEGIN)
    for _ in range(3):
        server.next_event()
        server.reply(OK)
    assert server.next_event() is NEED_DATA
    assert codes(server.outgoing()) == [250, 250, 250]
    assert server.outgoing() == b""


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_command_line_ends(line_end: bytes) -> None:
    """A command ends at LF, with or without CR (qmail.md 2.10)."""
    assert talk([b"NOOP" + line_end + b"QUIT" + line_end])[0] == [Noop(), Quit()]


def test_unfinished_command_is_not_executed() -> None:
    """A command without its line end is none."""
    assert talk([b"NOOP\r\nQUIT"])[0] == [Noop()]


def test_events_must_be_answered() -> None:
    """Forgetting to answer, and answering twice, are found at once."""
    server = Server(Limits())
    server.receive(b"NOOP\r\nNOOP\r\n")
    server.next_event()
    with pytest.raises(AssertionError):
        server.next_event()
    server.reply(OK)
    with pytest.raises(AssertionError):
        server.reply(OK)
    with pytest.raises(AssertionError):
        server.refuse(TOO_BIG)


@pytest.mark.parametrize(
    ("commands", "want"),
    [
        (b"RCPT TO:<a@b>\r\n", [503]),
        (b"DATA\r\n", [503]),
        (b"BDAT 3\r\nabcNOOP\r\n", [503, 250]),
        (b"MAIL FROM:<>\r\nDATA\r\n", [250, 503]),
        (b"MAIL FROM:<>\r\nMAIL FROM:<>\r\n", [250, 250]),
        (BEGIN + b"RSET\r\nRCPT TO:<a@b>\r\n", [250, 250, 250, 250, 503]),
        (BEGIN + b"HELO c\r\nDATA\r\n", [250, 250, 250, 250, 503]),
        (BEGIN + b"DATA\r\n.\r\nDATA\r\n", [250, 250, 250, 354, 250, 503]),
        (BEGIN + b"NOOP\r\nVRFY x\r\nHELP\r\nDATA\r\n.\r\n", [250] * 6 + [354, 250]),
        (BEGIN + b"MAIL FROM:<x\r\nRCPT TO:<a@b>\r\nDATA\r\n", [250, 250, 250, 501, 503, 503]),
        (BEGIN + b"RCPT TO:<x\r\nDATA\r\n.\r\n", [250, 250, 250, 501, 354, 250]),
        (BEGIN + b"BDAT 2\r\n\r\nDATA\r\nBDAT 0 LAST\r\n", [250, 250, 250, 250, 503, 250]),
        (BEGIN + b"BDAT 2\r\n\r\nRCPT TO:<a@b>\r\nMAIL FROM:<>\r\n", [250, 250, 250, 250, 503, 503]),
        (BEGIN + b"BDAT 2\r\n\r\nRSET\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n", [250, 250, 250, 250, 250, 503, 250]),
        (BEGIN + b"BDAT 2 LAST\r\n\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n", [250, 250, 250, 250, 503, 250]),
        (BEGIN + b"BDAT 2\r\n\r\nEHLO c\r\nBDAT 0 LAST\r\n", [250, 250, 250, 250, 250, 503]),
    ],
)
def test_sequence(commands: bytes, want: list[int]) -> None:
    """What may come when; a refused MAIL ends the transaction before, so that its recipients get nobody else's mail."""
    assert codes(talk([commands])[1]) == want


def refusing(kind: type, code: int) -> Answer:
    return lambda event: Reply(code, b"", b"no") if isinstance(event, kind) else yes(event)


@pytest.mark.parametrize(
    ("kind", "commands", "want"),
    [
        (Rcpt, BEGIN + b"DATA\r\n", [250, 250, 450, 503]),
        (Mail, BEGIN + b"DATA\r\n", [250, 450, 503, 503]),
        (Start, BEGIN + b"DATA\r\nRCPT TO:<a@b>\r\n", [250, 250, 250, 450, 503]),
        (End, BEGIN + b"DATA\r\n.\r\nDATA\r\n", [250, 250, 250, 354, 450, 503]),
        (Piece, BEGIN + b"BDAT 2\r\n\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n", [250, 250, 250, 450, 503, 250]),
        (Start, BEGIN + b"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\nNOOP\r\n", [250, 250, 250, 450, 503, 250]),
        (Start, BEGIN + b"BDAT 0\r\nNOOP\r\n", [250, 250, 250, 450, 250]),
        (Hello, BEGIN + b"DATA\r\n.\r\n", [450, 250, 250, 354, 250]),
    ],
)
def test_refused(kind: type, commands: bytes, want: list[int]) -> None:
    """After a refusal the transaction is where it was, or over; the octets of refused chunks are never commands."""
    assert codes(talk([commands], refusing(kind, 450))[1]) == want


def test_refused_second_mail() -> None:
    """A sender that the rules refuse ends the transaction before, like one that nobody understands."""

    def answer(event: Event) -> Reply:
        return TOO_BIG if isinstance(event, Mail) and event.sender == b"x@y" else yes(event)

    wire = BEGIN + b"MAIL FROM:<x@y>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    assert codes(talk([wire], answer)[1]) == [250, 250, 250, 552, 503, 503]


def test_refused_chunk_is_answered_after_its_octets() -> None:
    """The answer to a refused BDAT waits for the octets (RFC 3030 2)."""
    server = Server(Limits())
    server.receive(BEGIN + b"BDAT 10 LAST\r\n12345")
    for _ in range(3):
        server.next_event()
        server.reply(OK)
    assert server.next_event() == Start(chunking=True)
    server.outgoing()
    server.reply(TROUBLE)
    assert server.next_event() is NEED_DATA
    assert server.outgoing() == b""
    server.receive(b"67890")
    assert server.next_event() is NEED_DATA
    assert codes(server.outgoing()) == [451]


def test_chunks() -> None:
    """A message in chunks; none of them is announced but the first."""
    events, said = talk([BEGIN + b"BDAT 8\r\n.\r\n.\r\na\rBDAT 0\r\nBDAT 2 LAST\r\n\nbQUIT\r\n"])
    assert Events(events[3:]) == [Start(True), Text(b".\n.\na"), Piece(), Piece(), Text(b"\nb\n"), End(), Quit()]
    assert codes(said) == [250, 250, 250, 250, 250, 250, 250]


def test_closed_by_421() -> None:
    """A reply of 421 ends the session (RFC 5321 3.8)."""
    events, said = talk([BEGIN], refusing(Mail, 421))
    assert events == [Hello(b"c", True), Mail(b"a@b")]
    assert codes(said) == [250, 421]


def test_refuse_in_the_middle() -> None:
    """A message that is refused while it comes is thrown away to its end, then answered, and the next command heard."""
    server = Server(Limits())
    server.receive(BEGIN + b"DATA\r\n")
    for answer in (OK, OK, OK, GO):
        server.next_event()
        server.reply(answer)
    assert server.next_event() is NEED_DATA
    server.outgoing()
    server.receive(b"12345\r\n")
    assert server.next_event() == Text(b"12345")
    server.refuse(TOO_BIG)
    assert server.next_event() is NEED_DATA
    server.receive(b"67890\r\n.\r\nNOOP\r\n")
    assert server.next_event() == Noop()
    server.reply(OK)
    assert codes(server.outgoing()) == [552, 250]


def test_refuse_and_bare_line_end() -> None:
    """What is thrown away is looked at all the same: a smuggler does not get the session back."""
    events, said = talk([BEGIN + b"BDAT 3\r\na\nbNOOP\r\n"], refusing(Start, 552))
    assert codes(said) == [250, 250, 250, 554]
    assert isinstance(events[-1], Rejected)


@pytest.mark.parametrize("chunking", [False, True])
def test_refused_without_end(chunking: bool) -> None:
    """A refused message is thrown away only so far; then it is answered and the session ends."""
    server = Server(Limits())
    server.receive(BEGIN + (b"BDAT %d LAST\r\n" % 10**12 if chunking else b"DATA\r\n"))
    for answer in (OK, OK, OK, GO):
        server.next_event()
        server.reply(answer)
    block = b"x" * 65534 + b"\r\n"
    server.receive(block)
    assert isinstance(server.next_event(), Text)
    server.refuse(TOO_BIG)
    thrown_away = len(block)
    while (event := server.next_event()) is NEED_DATA:
        thrown_away += len(block)
        server.receive(block)
    assert event == Rejected(b"", TOO_BIG)
    assert thrown_away < DISCARD_MAX + 3 * len(block)
    assert server.next_event() is END
    assert codes(server.outgoing())[-1] == 552


SMUGGLING = [
    b"\n.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\n",
    b"\r\n.\0\n",
    b"\n\0.\r\n",
]


@pytest.mark.parametrize("ending", SMUGGLING)
def test_smuggling(ending: bytes) -> None:
    """A bare CR or LF gets the message refused and the session closed: no command after it is executed."""
    wire = (
        BEGIN
        + b"DATA\r\nSubject: x\r\n\r\nbody"
        + ending
        + b"MAIL FROM:<evil@x>\r\nRCPT TO:<c@d>\r\nDATA\r\nevil\r\n.\r\n"
    )
    for at in range(len(BEGIN), len(wire)):
        events, said = talk([wire[:at], wire[at:]])
        assert End() not in events
        assert Mail(b"evil@x") not in events
        assert codes(said) == [250, 250, 250, 354, 554]


def test_cut_off_anywhere() -> None:
    """A message that is cut off is not over, wherever that is."""
    wire = BEGIN + b"DATA\r\nSubject: x\r\n\r\n.\r\n"
    for at in range(len(wire)):
        assert End() not in talk([wire[:at]])[0]
    assert End() in talk([wire])[0]


def test_long_line() -> None:
    """A command line that is too long is refused once; its rest is no command, and the next line is heard."""
    limits = Limits(line_bytes=600)
    for wire in (b"NOOP " + b"x" * 596 + b"\r\nNOOP\r\n", b"x" * 1_000_000 + b"\nNOOP\r\n"):
        for pieces in (
            [wire],
            [wire[:600], wire[600:]],
            [wire[:601], wire[601:]],
            [wire[:700], wire[700:900], wire[900:]],
        ):
            events, said = talk(pieces, limits=limits)
            assert codes(said) == [500, 250]
            assert Events(events[1:]) == [Noop()]
    assert codes(talk([b"NOOP " + b"x" * 594 + b"\r\n"], limits=limits)[1]) == [250]


def test_endless_line() -> None:
    """A line without end is refused, thrown away so far, and then the session ends."""
    events, said = talk([b"x" * 65536] * 1000 + [b"\nNOOP\r\n"])
    assert codes(said) == [500, 421]
    assert Noop() not in events


def test_errors() -> None:
    """So many errors and no more; what stands behind them is not looked at."""
    events, said = talk([b"X\r\n" * 10 + b"NOOP\r\n"], limits=Limits(errors=3))
    assert codes(said) == [500, 500, 500, 421]
    assert Noop() not in events


def test_errors_by_the_rules() -> None:
    """Recipients that are refused for good are errors like any other; temporary refusals are not."""
    wire = b"EHLO c\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<a@b>\r\n" * 10
    assert codes(talk([wire], refusing(Rcpt, 550), Limits(errors=3))[1]) == [250, 250, 550, 550, 550, 421]
    assert codes(talk([wire], refusing(Rcpt, 452), Limits(errors=3))[1]) == [250, 250] + [452] * 10


def test_commands() -> None:
    """So many commands without a message; recipients are not counted, and a message starts the count anew."""
    limits = Limits(commands=6)
    assert codes(talk([b"NOOP\r\n" * 10], limits=limits)[1]) == [250] * 6 + [421]
    message = b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@b>\r\n" * 10 + b"NOOP\r\n" * 2 + b"DATA\r\n.\r\n"
    assert codes(talk([message * 3], limits=limits)[1]) == ([250] * 13 + [354, 250]) * 3


def test_no_limits() -> None:
    """0 is no limit."""
    assert codes(talk([b"X\r\n" * 1000], limits=Limits(errors=0, commands=0))[1]) == [500] * 1000


def test_utf8_recipient_needs_a_utf8_transaction() -> None:
    """SMTPUTF8 is said at MAIL, and holds for that transaction (RFC 6531 3.4)."""
    rcpt = "RCPT TO:<jörg@d>\r\n".encode()
    wire = b"MAIL FROM:<>\r\n" + rcpt + b"MAIL FROM:<> SMTPUTF8\r\n" + rcpt + b"MAIL FROM:<>\r\n" + rcpt
    assert codes(talk([wire])[1]) == [250, 553, 250, 250, 250, 553]


def asking(*right: bytes) -> Answer:
    """Ask for a response until one is *right*; ``*`` ends the exchange."""

    def answer(event: Event) -> Reply:
        if isinstance(event, Auth | Response):
            line = event.initial if isinstance(event, Auth) else event.line
            if line == b"*":
                return Reply(501, b"5.7.0", b"cancelled")
            return Reply(235, b"2.7.0", b"ok") if line in right else Reply(334, b"", b"VXNlcm5hbWU6")
        return yes(event)

    return answer


def test_auth() -> None:
    """334 asks for a line, which is no command; after any other answer commands are heard again."""
    wire = b"AUTH LOGIN\r\nQUIT\r\n\r\nyes\r\nNOOP\r\nAUTH X yes\r\nAUTH X =\n*\nNOOP\r\n"
    events, said = talk([wire], asking(b"yes"))
    assert events == [
        Auth(b"LOGIN", None),
        Response(b"QUIT"),
        Response(b""),
        Response(b"yes"),
        Noop(),
        Auth(b"X", b"yes"),
        Auth(b"X", b"="),
        Response(b"*"),
        Noop(),
    ]
    assert codes(said) == [334, 334, 334, 235, 250, 235, 334, 501, 250]


def test_an_empty_challenge() -> None:
    """An empty challenge is 334, a blank and the line end (RFC 4954 4)."""
    assert talk([b"AUTH PLAIN\r\n"], lambda event: Reply(334, b"", b""))[1] == b"334 \r\n"


def test_auth_is_not_for_transactions() -> None:
    """AUTH during a transaction is a bad sequence, and the transaction stays (RFC 4954 4)."""
    assert codes(talk([BEGIN + b"AUTH PLAIN x\r\nDATA\r\n.\r\n"])[1]) == [250, 250, 250, 503, 354, 250]
    assert codes(talk([b"MAIL FROM:<>\r\nAUTH PLAIN x\r\nRSET\r\nAUTH PLAIN x\r\n"])[1]) == [250, 503, 250, 250]


def test_long_responses() -> None:
    """A line of an exchange may be as long as RFC 4954 asks for; a longer one ends the exchange, not the session."""
    for first in (b"AUTH PLAIN ", b"AUTH PLAIN\r\n"):
        just = first + b"x" * RESPONSE_MAX + b"\r\nNOOP\r\n"
        long = first + b"x" * (RESPONSE_MAX + 100) + b"\r\nNOOP\r\n"
        right = b"x" * RESPONSE_MAX
        for pieces in ([just], [just[:-7], just[-7:]], [just[:9000], just[9000:]]):
            assert codes(talk(pieces, asking(right))[1])[-2:] == [235, 250]
        for pieces in ([long], [long[:-7], long[-7:]], [long[:9000], long[9000:]]):
            events, said = talk(pieces, asking(right))
            assert codes(said)[-2:] == [500, 250]
            assert events[-1:] == [Noop()]


def test_an_endless_response() -> None:
    """A line of an exchange without end is thrown away so far, and then the session ends."""
    assert codes(talk([b"AUTH X\r\n", *[b"x" * 65536] * 1000], asking())[1]) == [334, 500, 421]


def test_half_an_exchange() -> None:
    """A response without its line end is none."""
    assert talk([b"AUTH X\r\nyes"], asking(b"yes"))[0] == [Auth(b"X", None)]


def test_refused_logins_are_errors() -> None:
    """Failed attempts count as errors, however they are made, and then the session ends."""
    wire = b"AUTH X *\r\nAUTH X\r\n*\r\n" * 100
    assert codes(talk([wire], asking(), Limits(errors=3))[1]) == [501, 334, 501, 501, 421]


def test_secrets_are_in_no_repr() -> None:
    """What may hold a password is not shown when an event is."""
    assert "x" not in repr(Auth(b"PLAIN", b"x")) + repr(Response(b"x"))


def test_starttls() -> None:
    """STARTTLS is told to the driver, between messages; whether the peer sent more at once is known then."""
    for wire, unread in ((b"NOOP\r\nSTARTTLS\r\n", False), (b"NOOP\r\nSTARTTLS\r\nM", True)):
        server = Server(Limits())
        server.receive(wire)
        server.next_event()
        server.reply(OK)
        assert isinstance(server.next_event(), StartTls)
        assert server.unread is unread
    assert codes(talk([BEGIN + b"BDAT 2\r\n\r\nSTARTTLS\r\n"])[1]) == [250, 250, 250, 250, 503]


def test_what_must_come_first() -> None:
    """Before TLS and before AUTH most commands are refused, and the octets of a BDAT are no commands then either."""
    wire = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 6\r\nQUIT\r\nRSET\r\nVRFY a\r\n"
    both = b"STARTTLS\r\nAUTH X\r\nQUIT\r\n"
    assert codes(talk([wire + both], bar=BEFORE_TLS)[1]) == [250, 530, 530, 530, 530, 530, 530, 250, 530, 250]
    assert codes(talk([wire + both], bar=BEFORE_AUTH)[1]) == [250, 530, 530, 530, 530, 250, 530, 250, 250, 250]


FRAGMENTS = [
    b"AUTH PLAIN =\r\n",
    b"auth x\r\n",
    b"yes\r\n",
    b"*\r\n",
    b"STARTTLS\r\n",
    BEGIN,
    b"EHLO c\r\n",
    b"MAIL FROM:<a@b> SIZE=10\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 2 LAST\r\n",
    b"BDAT x\r\n",
    b"RSET\r\n",
    b"NOOP\n",
    b"QUIT\r\n",
    b"Subject: x\r\n",
    b"\r\n",
    b"\r\n.\r\n",
    b".",
    b"\r",
    b"\n",
    b"\0",
    b"GET / HTTP/1.1\r\n",
    b"x" * 700,
]
SESSIONS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=15).map(b"".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=10)), max_size=15).map(b"".join),
    st.binary(max_size=60),
)


ANSWERS = [yes, refusing(Start, 451), refusing(Rcpt, 550), asking(b"yes")]


def told(events: Events) -> Events:
    """What is the same however the input is cut: the text of a message that is never whole depends on the cuts."""
    kept = Events()
    for event, after in zip(events, [*events[1:], END], strict=False):
        if not isinstance(event, Text) or isinstance(after, Piece | End):
            kept.append(event)
    return kept


@settings(max_examples=400)
@given(SESSIONS, st.randoms(use_true_random=False), st.sampled_from(ANSWERS))
def test_any_bytes(wire: bytes, rng: random.Random, answer: Answer) -> None:
    """Any bytes give replies and never an exception; whole, byte by byte and cut at random they give the same."""
    limits = Limits(line_bytes=600, errors=5, commands=10)
    events, said = talk([wire], answer, limits)
    codes(said)
    bytewise = [wire[at : at + 1] for at in range(len(wire))]
    at = sorted(rng.randint(0, len(wire)) for _ in range(rng.randint(1, 6)))
    random_cuts = [wire[a:b] for a, b in zip([0, *at], [*at, len(wire)], strict=True) if a < b]
    for pieces in (bytewise, random_cuts):
        cut_events, cut_said = talk(pieces, answer, limits)
        assert told(cut_events) == told(events)
        assert cut_said == said
