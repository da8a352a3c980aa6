"""What it means that nobody of a destination served us."""

import pytest

from qm.remote.unserved import Miss, unserved
from qm.remote.words import Peer
from qm.wire.delivery import Health
from qm.wire.replies import Reply

A, B = Peer(b"a.test", b"192.0.2.1"), Peer(b"b.test", b"192.0.2.2")
SILENT = Miss(A, b"connection timed out", None, reached=False)
LOST = Miss(A, b"Connected to %b but connection died.", None, reached=True)


def refusal(peer: Peer, reply: bytes) -> Miss:
    return Miss(peer, b"Connected to %b but greeting failed.", Reply(int(reply[:3]), reply), reached=True)


NO, NO_TOO, LATER = refusal(A, b"554 5.7.1 no\r\n"), refusal(B, b"554 no\r\n"), refusal(B, b"421 4.3.2 busy\r\n")


@pytest.mark.parametrize(
    ("misses", "addresses", "letter", "health"),
    [
        ([], 3, b"Z", Health.DEAD),
        ([SILENT], 1, b"Z", Health.DEAD),
        ([SILENT, SILENT], 2, b"Z", Health.DEAD),
        ([LOST], 1, b"Z", Health.BUSY),
        ([LATER], 1, b"Z", Health.BUSY),
        ([NO], 1, b"D", Health.BUSY),
        ([NO, NO_TOO], 2, b"D", Health.BUSY),
        ([NO, NO_TOO], 3, b"Z", Health.BUSY),  # one was not tried
        ([NO, LATER], 2, b"Z", Health.BUSY),
        ([NO, SILENT], 2, b"Z", Health.BUSY),
        ([NO, LOST], 2, b"Z", Health.BUSY),
    ],
)
def test_table(misses: list[Miss], addresses: int, letter: bytes, health: Health) -> None:
    """It is for ever only if every address was tried, answered, and said 5xx; from a relay of ours it never is."""
    result, found = unserved(misses, addresses, relay=False)
    assert (result.letter, found) == (letter, health)
    assert unserved(misses, addresses, relay=True)[0].letter == b"Z"
    assert result.status[:1] == {b"Z": b"4", b"D": b"5"}[letter]


def test_words() -> None:
    """The text says which address said what; connection failures name each address and its reason."""
    assert unserved([NO], 1, relay=False)[0].text == (
        b"Connected to 192.0.2.1 but greeting failed.\nRemote host said: 554 5.7.1 no\nGiving up on 192.0.2.1.\n"
    )
    assert unserved([NO], 1, relay=False)[0].status == b"5.7.1"
    assert unserved([NO], 2, relay=False)[0].status == b"4.0.0"
    refused = Miss(B, b"connection refused", None, reached=False)
    text = unserved([SILENT, refused], 2, relay=False)[0].text
    assert b"(192.0.2.1: connection timed out, 192.0.2.2: connection refused)" in text and b"#4.4.1" in text
    assert b"192.0.2.1 but connection died. (#4.4.2)" in unserved([LOST], 1, relay=False)[0].text


UNFIT = Miss(A, b"%b does not offer REQUIRETLS.", None, reached=True, status=b"5.7.30", final=True)


def test_a_requirement_that_nobody_can_keep() -> None:
    """It is for ever if no address is left that could, a relay's too; the code then is that of RFC 8689."""
    for relay in (False, True):
        result, health = unserved([UNFIT], 1, relay=relay)
        assert (result.letter, result.status, health) == (b"D", b"5.7.30", Health.UNKNOWN)
    assert unserved([NO, UNFIT], 2, relay=False)[0].status == b"5.7.30"
    for others in ([], [LATER], [LOST], [SILENT]):
        result, _ = unserved([UNFIT, *others], 2, relay=False)
        assert (result.letter, result.status[:1]) == (b"Z", b"4")
    assert unserved([UNFIT], 2, relay=False)[0].status == b"4.7.30"
