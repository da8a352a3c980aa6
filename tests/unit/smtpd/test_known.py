"""What smtpd remembers of userd's answers."""

from qm.smtpd.known import KNOWN_MAX, Known


class _Users:
    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.verdict = b"yes"

    def exists(self, address: bytes) -> tuple[bytes, bytes]:
        self.asked.append(address)
        return self.verdict, b"why"


def test_yes_is_asked_for_once_a_second() -> None:
    """A mailbox that exists is asked for again only after a second."""
    users, now_s = _Users(), 100.0
    known = Known(users, lambda: now_s)
    assert [known.exists(b"a@b")[0] for _ in range(3)] == [b"yes"] * 3
    assert users.asked == [b"a@b"]
    now_s += 0.9
    assert known.exists(b"a@b")[0] == b"yes"
    assert users.asked == [b"a@b"]
    now_s += 0.1
    users.verdict = b"no"
    assert known.exists(b"a@b") == (b"no", b"why")


def test_no_and_later_are_never_remembered() -> None:
    """A mailbox that has just been made gets mail at once."""
    users = _Users()
    known = Known(users, lambda: 100.0)
    for users.verdict in (b"no", b"later", b"yes"):
        assert known.exists(b"a@b")[0] == users.verdict
    assert len(users.asked) == 3


def test_memory_is_bounded() -> None:
    """However many recipients there are, KNOWN_MAX are remembered."""
    known = Known(_Users(), lambda: 100.0)
    for number in range(3 * KNOWN_MAX):
        known.exists(b"%d@b" % number)
    assert len(known._until_s) <= KNOWN_MAX
