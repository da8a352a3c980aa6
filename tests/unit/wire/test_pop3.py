"""The POP3 protocol after login: any bytes in, commands and replies out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.pop3 import ERRORS_MAX, LINE_MAX, SKIP_MAX, Command, Signal, Transaction, Verb

COMMANDS = (
    b"STAT",
    b"LIST",
    b"list 1",
    b"UIDL 2",
    b"RETR 1",
    b"TOP 1 0",
    b"DELE 3",
    b"RSET",
    b"NOOP",
    b"LAST",
    b"CAPA",
    b"UTF8",
    b"LANG",
    b"LANG *",
    b"LANG en-GB",
    b"LANG tlh",
    b"QUIT",
    b"TOP 1",
    b"RETR x",
    b"RETR 0",
    b"RETR 1 2",
    b"DELE -1",
    b"",
    b" STAT",
    b"STAT 1",
    b"RETR 99999999999999999999999999",
    b"\0",
    b"RETR \xff",
    b"x" * (LINE_MAX + 1),
    b"AUTH",
)
script = st.lists(
    st.one_of(st.sampled_from(COMMANDS), st.binary(max_size=30)).flatmap(
        lambda line: st.sampled_from([line + b"\r\n", line + b"\n", line])
    ),
    max_size=20,
).map(b"".join)


def _converse(pieces: list[bytes]) -> tuple[list[Command], bytes]:
    """All commands and all replies for *pieces* and the end; each command is answered with its own text."""
    server = Transaction(b"+OK 3 messages")
    commands: list[Command] = []
    for piece in [*pieces, b""]:
        server.receive(piece)
        while isinstance(event := server.next_event(), Command):
            commands.append(event)
            server.ok(event.verb.value)
    assert event is Signal.EOF
    return commands, server.outgoing()


@given(script, st.data())
def test_pieces_do_not_matter(data: bytes, draw: st.DataObject) -> None:
    """The same bytes give the same commands and replies: whole, byte by byte, or cut anywhere."""
    whole = _converse([data] if data else [])
    assert _converse([bytes([byte]) for byte in data]) == whole
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert _converse([piece for piece in pieces if piece]) == whole


@given(script)
def test_any_bytes_give_status_lines(data: bytes) -> None:
    """Whatever comes in, what goes out is POP3: status lines, or multi-line replies that end."""
    replies = _converse([data] if data else [])[1]
    assert replies.endswith(b"\r\n")
    lines = replies[:-2].split(b"\r\n")
    inside = False
    for line in lines:
        assert len(line) <= 512  # RFC 2449 4
        assert not any(byte < 32 or byte > 126 for byte in line)
        if inside:
            inside = line != b"."
        else:
            assert line.startswith((b"+OK", b"-ERR"))
            inside = line.endswith(b"list follows")
    assert not inside


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"STAT", Command(Verb.STAT)),
        (b"lIsT  2 ", Command(Verb.LIST, 2)),
        (b"LIST", Command(Verb.LIST, None)),
        (b"RETR 007", Command(Verb.RETR, 7)),
        (b"RETR 0", Command(Verb.RETR, 0)),
        (b"TOP 1 20", Command(Verb.TOP, 1, 20)),
        (b"QUIT", Command(Verb.QUIT)),
    ],
)
def test_well_formed(line: bytes, command: Command) -> None:
    """Verbs in any case, numbers with blanks around them."""
    assert _converse([line + b"\r\n"])[0] == [command]


@pytest.mark.parametrize(
    "line", [b"RETR", b"RETR one", b"RETR -1", b"RETR +1", b"RETR 1 2", b"TOP 1", b"DELE \xb2", b"STAT 1", b"XYZ"]
)
def test_ill_formed(line: bytes) -> None:
    """Nonsense is answered -ERR and never reaches the mailbox."""
    commands, replies = _converse([line + b"\r\n"])
    assert not commands
    assert replies.split(b"\r\n")[1].startswith(b"-ERR ")


def test_a_command_without_its_end_is_not_one() -> None:
    """QUIT that was cut off before its line end removes nothing."""
    assert _converse([b"DELE 1\r\n", b"QUIT"])[0] == [Command(Verb.DELE, 1)]


def test_nothing_after_quit() -> None:
    """What follows QUIT is not looked at."""
    assert _converse([b"QUIT\r\nDELE 1\r\n"])[0] == [Command(Verb.QUIT)]


def test_endless_line() -> None:
    """A line without end costs no memory, and in the end the connection."""
    server = Transaction(b"+OK")
    event: Command | Signal = Signal.NEED_DATA
    for _ in range(SKIP_MAX // 65536 + 2):
        assert event is Signal.NEED_DATA
        server.receive(b"A" * 65536)
        event = server.next_event()
        if event is Signal.EOF:
            break
        assert len(server._in) <= LINE_MAX
    assert event is Signal.EOF
    assert server.outgoing().endswith(b"-ERR line too long, goodbye\r\n")


def test_a_long_line_is_one_error() -> None:
    """After a line that is too long the next command works."""
    commands, replies = _converse([b"RETR " + b"1" * LINE_MAX + b"\r\nSTAT\r\n"])
    assert commands == [Command(Verb.STAT)]
    assert b"-ERR line too long\r\n" in replies


def test_too_many_bad_commands() -> None:
    """Who sends nothing but nonsense is disconnected."""
    commands, replies = _converse([b"GET / HTTP/1.1\r\n" * (ERRORS_MAX + 5) + b"STAT\r\n"])
    assert not commands
    assert replies.count(b"-ERR unknown command") == ERRORS_MAX
    assert replies.endswith(b"goodbye\r\n")


def test_capabilities() -> None:
    """CAPA lists what is there (RFC 2449), nothing more."""
    replies = _converse([b"CAPA\r\n"])[1].split(b"\r\n")
    assert replies[2:-2] == [
        b"TOP",
        b"USER",
        b"UIDL",
        b"PIPELINING",
        b"RESP-CODES",
        b"AUTH-RESP-CODE",
        b"EXPIRE NEVER",
        b"UTF8",
        b"LANG",
        b"IMPLEMENTATION qm",
    ]


def test_language() -> None:
    """LANG lists and sets languages, and the tag chosen stands in the reply (RFC 6856 3.2)."""
    replies = _converse([b"LANG\r\nLANG en-gb\r\nLANG *\r\nLANG i-default\r\nLANG ko\r\n"])[1].split(b"\r\n")
    assert replies[2:5] == [b"en English", b"i-default English", b"."]
    assert [line.split()[:2] for line in replies[5:8]] == [[b"+OK", b"en"], [b"+OK", b"en"], [b"+OK", b"i-default"]]
    assert replies[8].startswith(b"-ERR ")


def test_an_unanswered_command_is_a_bug() -> None:
    """A driver cannot forget an answer, or give two."""
    server = Transaction(b"+OK")
    server.receive(b"STAT\r\nSTAT\r\n")
    server.next_event()
    with pytest.raises(AssertionError):
        server.next_event()
    server.ok()
    with pytest.raises(AssertionError):
        server.ok()
