"""What an address leads to in a forwarding database."""

from collections.abc import Iterable

import pytest

from qm.errors import Temporary
from qm.fastforward.policy import DEPTH_MAX, Expansion
from qm.wire import forwarding
from qm.wire.envelope import RECIPIENTS_MAX
from qm.wire.forwarding import Command, Kind

TEXT = b"""
joe@a.example: one@x;
@a.example: host@x;
bob@: name@x;
list@: joe@a.example, bob@a.example, carol@b.example, ./list.bin, "|program", "|program";
?list@: owner-list@me;
self@: self@a.example, other@x;
ping@a.example: pong@a.example;
pong@a.example: ping@a.example;
twice@: joe@a.example, one@x;
"""
LISTS = {b"./list.bin": b"&dave@d\0&joe@a.example\0/inner.bin\0", b"/inner.bin": b"&erin@e\0./list.bin\0"}


def database(text: bytes = TEXT) -> dict[bytes, bytes]:
    return {entry.key: forwarding.encode(entry.commands) for entry in forwarding.parse(text)}


def read_list(path: bytes) -> Iterable[Command]:
    return forwarding.decode(LISTS[path])


def run(address: bytes, sender: bytes = b"s@s", text: bytes = TEXT) -> Expansion | None:
    expansion = Expansion(database(text).get, read_list, sender)
    return expansion if expansion.run(address) else None


def mails(address: bytes, sender: bytes = b"s@s") -> dict[bytes, list[bytes]]:
    expansion = run(address, sender)
    assert expansion is not None
    return {sender: list(recipients) for sender, recipients in expansion.mails.items()}


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        (b"JOE@A.Example", b"one@x"),
        (b"any@a.example", b"host@x"),
        (b"bob@a.example", b"host@x"),
        (b"bob@b.example", b"name@x"),
    ],
)
def test_order(address: bytes, recipient: bytes) -> None:
    """The whole address counts before its host, that before its name; case does not count."""
    assert mails(address) == {b"s@s": [recipient]}


def test_nobody() -> None:
    """What the database does not know is said to be unknown."""
    assert run(b"nobody@b.example") is None


def test_lists() -> None:
    """Lists in lists, each read once; programs once; and what is known as it stands is followed."""
    expansion = run(b"list@me")
    assert expansion is not None
    assert list(expansion.local) == [Command(Kind.PROGRAM, b"program")]
    assert mails(b"list@me") == {
        b"owner-list@me": [b"one@x", b"bob@a.example", b"carol@b.example", b"dave@d", b"erin@e"]
    }


@pytest.mark.parametrize("sender", [b"", b"#@[]"])
def test_bounces_have_no_owner(sender: bytes) -> None:
    """What has no sender keeps having none, so that a list's owner cannot make mail circle."""
    assert list(mails(b"list@me", sender)) == [sender]


def test_itself() -> None:
    """An alias that names itself hands that address to the queue, and the others get theirs."""
    text = b"self@a.example: self@a.example, other@x;"
    expansion = run(b"self@a.example", text=text)
    assert expansion is not None
    assert [list(recipients) for recipients in expansion.mails.values()] == [[b"self@a.example", b"other@x"]]


def test_a_circle() -> None:
    """Aliases that name one another end where they began, at the queue, which knows that it loops."""
    assert mails(b"ping@a.example") == {b"s@s": [b"ping@a.example"]}


def test_once() -> None:
    """Who is reached twice gets one copy."""
    assert mails(b"twice@b") == {b"s@s": [b"one@x"]}


def test_too_deep() -> None:
    """A chain of aliases has a bound, and then mail waits."""
    text = b"".join(b"a%d@x: a%d@x;" % (n, n + 1) for n in range(DEPTH_MAX + 1))
    with pytest.raises(Temporary, match="too deep"):
        run(b"a0@x", text=text)
    assert run(b"a1@x", text=text) is not None


def test_too_many() -> None:
    """An alias cannot lead to more addresses than an envelope holds."""
    expansion = Expansion({b":a@x": b"&b\0" * (RECIPIENTS_MAX + 1)}.get, read_list, b"s@s")
    with pytest.raises(Temporary, match="more than"):
        expansion.run(b"a@x")


@pytest.mark.parametrize("value", [b"&b", b"\0", b"&\0"])
def test_a_broken_database(value: bytes) -> None:
    """A value that cannot be understood makes mail wait."""
    with pytest.raises(Temporary, match="broken"):
        Expansion({b":a@x": value}.get, read_list, b"s@s").run(b"a@x")
