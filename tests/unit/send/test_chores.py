"""What takes longer than a turn is done in slices."""

import time

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


def test_a_turn_has_its_time() -> None:
    """A chore without end does not keep the loop: a turn comes back after some milliseconds."""

    def endless() -> Chore:
        while True:
            yield

    chores = Chores()
    chores.begin(endless())
    began_s = time.process_time()
    assert chores.turn()
    assert time.process_time() - began_s < 5 * TURN_S
