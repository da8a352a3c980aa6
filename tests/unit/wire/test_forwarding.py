"""The text and the database of forwarding instructions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import forwarding, maillist
from qm.wire.forwarding import BadForward, Command, Entry, Kind


def test_instructions() -> None:
    """Targets, commands of every kind, quotes, backslashes, blanks, comments; each with its line."""
    text = b"""# who gets what
Root@: alan,
  &bill@b.example , ; # a comment where a target may begin
@gone.example: "|cat >/tmp/x y", !preline\\ me;
list@a.example: ./list.bin, /etc/other.bin, ">/var/mail/a", jo"e user"@x;
?list@a.example: owner@a.example;nobody@:;
"""
    assert list(forwarding.parse(text)) == [
        Entry(b":root@", (Command(Kind.FORWARD, b"alan"), Command(Kind.FORWARD, b"bill@b.example")), 2),
        Entry(b":@gone.example", (Command(Kind.PROGRAM, b"cat >/tmp/x y"), Command(Kind.PRELINE, b"preline me")), 4),
        Entry(
            b":list@a.example",
            (
                Command(Kind.LIST, b"./list.bin"),
                Command(Kind.LIST, b"/etc/other.bin"),
                Command(Kind.FILE, b"/var/mail/a"),
                Command(Kind.FORWARD, b"joe user@x"),
            ),
            5,
        ),
        Entry(b"?list@a.example", (Command(Kind.FORWARD, b"owner@a.example"),), 6),
        Entry(b":nobody@", (), 6),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"root: a;", 1),  # no @
        (b"a@: b;\nc@: d", 2),
        (b'a@: b;\n\nc@: "d;', 3),
        (b"a@ b;", 1),
        (b"a@: b: c;", 1),
        (b"a@: b;\n@: c;", 2),
        (b"a@: |;", 1),
        (b"a@: &;", 1),
        (b'a@: "b\nc";', 2),
        (b"?a@: |x;", 1),
        (b"?a@: b, c;", 1),
        (b"a@: " + b"x" * 1001 + b";", 1),
        (b"a@: x\\", 1),
    ],
)
def test_what_is_none(text: bytes, line: int) -> None:
    """An instruction that cannot be carried out is refused, with its line."""
    with pytest.raises(BadForward, match=f"^{line}: "):
        list(forwarding.parse(text))


def test_targets() -> None:
    """An address is looked for as it stands, then by its host, then by its name."""
    assert forwarding.targets(b"a@b@c") == (b"a@b@c", b"@c", b"a@b@")
    assert forwarding.targets(b"a") == (b"a",)


_TEXT = st.binary(min_size=1, max_size=20).filter(lambda text: not set(text) & set(b"\0\r\n") and text.strip(b" \t"))
_COMMANDS = st.one_of(
    st.builds(Command, st.sampled_from([kind for kind in Kind if kind is not Kind.LIST]), _TEXT),
    st.builds(lambda text: Command(Kind.LIST, b"/" + text), _TEXT),
)


@given(st.lists(_COMMANDS, max_size=4), _TEXT.map(lambda text: text.replace(b"?", b"x").lower() + b"@"))
def test_written_and_read(commands: list[Command], target: bytes) -> None:
    """What is written for any commands reads as the same commands; so does the database's form."""
    name = forwarding.key(target)
    (entry,) = forwarding.parse(forwarding.unparse(name, commands))
    assert entry == Entry(name, tuple(commands), 1)
    assert forwarding.decode(forwarding.encode(commands)) == commands


@given(st.binary(max_size=60))
def test_any_text(text: bytes) -> None:
    """Any bytes are instructions or BadForward."""
    try:
        list(forwarding.parse(text))
    except BadForward:
        pass


@pytest.mark.parametrize("value", [b"&a", b"&\0", b"\0", b"|\0"])
def test_a_broken_value(value: bytes) -> None:
    """A value that no setforward has made is refused."""
    with pytest.raises(ValueError):
        forwarding.decode(value)


def test_list() -> None:
    """A list has addresses and lists, a line each."""
    text = b"# list\n&a@b\nbob@c  \n\n./more.bin\n/x y\n"
    commands = list(maillist.parse(text))
    assert commands == [
        Command(Kind.FORWARD, b"a@b"),
        Command(Kind.FORWARD, b"bob@c"),
        Command(Kind.LIST, b"./more.bin"),
        Command(Kind.LIST, b"/x y"),
    ]
    assert list(maillist.parse(maillist.unparse(commands))) == commands


@pytest.mark.parametrize("line", [b"|x", b"!x", b">x", b"-x", b"(x)", b"&"])
def test_what_no_list_may_say(line: bytes) -> None:
    """Programs, mailboxes and what is no address are refused, with the line."""
    with pytest.raises(BadForward, match=r"^2: "):
        list(maillist.parse(b"a@b\n" + line))


def test_a_list_with_a_program() -> None:
    """A compiled list that names a program, as setmaillist makes none, is refused."""
    with pytest.raises(ValueError, match="no programs"):
        maillist.decode(b"&a\0|rm x\0")
