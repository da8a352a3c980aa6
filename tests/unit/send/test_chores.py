"""What takes longer than a turn is done in slices."""

import pytest

from qm.send.chores import TURN_S, Chore, Chores


def _count(name: str, slices: int, seen: list[str]) -> Chore:
    for number in range(slices):
        if number:
            yield
        seen.append(name)


def test_what_is_short_is_done_at_once() -> None:
    """A chore of one slice has ended when it has begun."""
    chores, seen = Chores(), list[str]()
    chores.begin(_count("a", 1, seen))
    assert seen == ["a"]
    assert not chores.turn()


def test_long_ones_take_turns() -> None:
    """Slices of several chores alternate until all have ended."""
    chores, seen = Chores(), list[str]()
    for name in "abc":
        chores.begin(_count(name, 3, seen))
    assert len(chores) == 3
    while chores.turn():
        pass
    assert "".join(seen) == "abc" * 3


def test_a_turn_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chore without end does not keep the loop: a turn comes back when its time is over."""
    now_s = 0.0

    def endless() -> Chore:
        nonlocal now_s
        while True:
            now_s += TURN_S / 4
            yield

    chores = Chores()
    chores.begin(endless())
    now_s = 0.0
    monkeypatch.setattr("qm.send.chores.time.monotonic", lambda: now_s)
    assert chores.turn()
    assert now_s == TURN_S
