"""Envelope files of a qmail queue (qmail.md section 4)."""

import pytest

from qm.wire import qmailqueue
from qm.wire.record import Malformed
from qm.wire.route import Rules


def test_channels() -> None:
    """T waits, D is done."""
    assert qmailqueue.channel(b"Ta@b\0Dc@d\0Te@f\0") == ([b"a@b", b"e@f"], 1)
    assert qmailqueue.channel(b"") == ([], 0)


@pytest.mark.parametrize("text", [b"Ta@b", b"Xa\0", b"\0"])
def test_bad_channels(text: bytes) -> None:
    """Anything else is not understood."""
    with pytest.raises(Malformed):
        qmailqueue.channel(text)


def test_senders_and_todo() -> None:
    """info/ has the sender, todo/ all."""
    assert qmailqueue.sender(b"Fa@b\0") == b"a@b"
    assert qmailqueue.sender(b"F\0") == b""
    mail = qmailqueue.todo(b"u7\0p8\0Fa@b\0Tc@d\0")
    assert (mail.sender, [who.address for who in mail.recipients]) == (b"a@b", [b"c@d"])
    for bad in (b"", b"Fa@b", b"Fa\0Fb\0", b"Ta\0"):
        with pytest.raises(Malformed):
            qmailqueue.sender(bad)
    for bad in (b"Ta\0", b"Fa\0Xb\0", b"Fa\0Tb"):
        with pytest.raises(Malformed):
            qmailqueue.todo(bad)


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        (b"ann-bob@Virt.example", b"bob@Virt.example"),
        (b"ann-bob@sub.any.example", b"ann-bob@sub.any.example"),
        (b"any-bob@sub.any.example", b"bob@sub.any.example"),
        (b"bob@virt.example", b"bob@virt.example"),
        (b"one-Joe@home.example", b"Joe@home.example"),
        (b"one-other@home.example", b"one-other@home.example"),
        (b"x-y@exempt.any.example", b"x-y@exempt.any.example"),
        (b"all-bob@me.example", b"all-bob@me.example"),
        (b"all-bob@else.example", b"bob@else.example"),
    ],
)
def test_prefixes(address: bytes, bare: bytes) -> None:
    """The prefix that qmail-send put before a virtual domain's recipient is taken off, and no other."""
    table = {b"virt.example": b"ann", b".any.example": b"any", b"joe@home.example": b"one", b"exempt.any.example": b""}
    rules = Rules(b"me.example", frozenset((b"me.example",)), frozenset(), {**table, b"": b"all"})
    assert qmailqueue.without_prefix(rules, address) == bare
