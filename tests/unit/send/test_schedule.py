"""send's schedule: when a message is due again, and whose turn it is."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.send import schedule
from qm.send.message import FRESH, NOW, Backlog
from qm.send.schedule import LOCAL_SKIP, REMOTE_SKIP, Turns, Work, next_try_s

M = TypeVar("M")


def _add(turns: Turns[M], message: M, recipients: Iterable[tuple[Hashable, int]], group: int = 1) -> None:
    """Let *recipients*, (destination, index) each, wait for their turns."""
    work = Work(message, group)
    for name, index in recipients:
        turns.add(work, name, index)
    turns.start(work)


def _drain(turns: Turns[str]) -> list[tuple[str, bytes, list[int]]]:
    """Everything that may start now, in order."""
    given_out = []
    while (turn := turns.next()) is not None:
        given_out.append((turn[0], turn[1].name, turn[2]))
    return given_out


def test_prompt_failures_are_tried_at_squares() -> None:
    """With prompt failures the tries fall at (10k)^2 s for local and (20k)^2 s for remote mail (qmail.md 7.6)."""
    for skip in (LOCAL_SKIP, REMOTE_SKIP):
        at_s, seen = 0, []
        for _ in range(6):
            at_s = next_try_s(0, at_s, skip)
            seen.append(at_s)
        assert seen == [(skip * k) ** 2 for k in range(1, 7)]


def test_the_vector_of_the_reference() -> None:
    """Born at 0, remote try starting at 5000 s: next try at 8100 (qmail.md 29)."""
    assert next_try_s(0, 5000, REMOTE_SKIP) == 8100


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31), st.sampled_from([LOCAL_SKIP, REMOTE_SKIP]))
def test_the_next_try_is_later_whatever_the_clock_says(born_s: int, age_s: int, skip: int) -> None:
    """A try is never due before, or at, the time when it began, also when the clock has gone back."""
    started_s = born_s + age_s
    assert next_try_s(born_s, started_s, skip) > started_s


def test_messages_take_turns() -> None:
    """A message with many recipients lets a message with one go before its second."""
    turns: Turns[str] = Turns(2, adapts=False)
    _add(turns, "big", [(b"a", n) for n in range(1000)])
    first = turns.next()
    _add(turns, "small", [(b"b", 0)])
    assert first is not None and first[0] == "big"
    second = turns.next()
    assert second is not None and second[0] in ("big", "small")
    turns.done(first[1])
    third = turns.next()
    assert third is not None
    assert {second[0], third[0]} == {"big", "small"}


def test_a_destination_has_its_own_limit() -> None:
    """Past a destination's window its deliveries wait, and others go on."""
    turns: Turns[str] = Turns(20, adapts=True)
    _add(turns, "m", [(b"slow", n) for n in range(9)])
    _add(turns, "n", [(b"other", 0)])
    out = _drain(turns)
    assert sum(name == b"slow" for _, name, _ in out) == schedule.FIRST_WINDOW == 5
    assert ("n", b"other", [0]) in out


def test_a_place_that_is_free_again_is_used() -> None:
    """Each delivery that ends lets one that waits for its destination start, until all have been given out."""
    turns: Turns[str] = Turns(20, adapts=True)
    _add(turns, "m", [(b"d", n) for n in range(50)])
    seen = []
    busy = []
    while True:
        turn = turns.next()
        if turn is None:
            if not busy:
                break
            turns.done(busy.pop(0))
            continue
        seen += turn[2]
        busy.append(turn[1])
    assert sorted(seen) == list(range(50))
    assert turns.busy == 0


def test_recipients_of_one_destination_go_together() -> None:
    """Up to *group* recipients of one destination make one delivery."""
    turns: Turns[str] = Turns(20, adapts=True)
    _add(turns, "m", [(b"d", n) for n in range(7)] + [(b"e", 7)], group=3)
    assert [indices for _, _, indices in _drain(turns)] == [[0, 1, 2], [7], [3, 4, 5], [6]]


def test_success_widens_and_failure_narrows() -> None:
    """A destination's window grows by one for each window of successes, and shrinks with each failure."""
    turns: Turns[str] = Turns(20, adapts=True)
    destination = turns.destination(b"d")
    for _ in range(5):
        destination.succeeded()
    assert 5.5 < destination.window < 6.5
    before = destination.window
    destination.failed(0.0)
    assert destination.window == before - 1


def test_a_window_of_failures_is_death() -> None:
    """A destination that fails a window's worth in a row is dead for 300 s; then it is tried again."""
    turns: Turns[str] = Turns(20, adapts=True)
    _add(turns, "m", [(b"d", n) for n in range(30)])
    turn = turns.next()
    assert turn is not None
    destination = turn[1]
    for _ in range(6):
        destination.failed(100.0)
    assert turns.is_dead(b"d", 399.0)
    assert [index for _, index in turns.drop(destination)] == list(range(1, 30))
    turns.done(destination)
    assert turns.next() is None
    assert not turns.is_dead(b"d", 401.0)


def test_who_never_served_us_and_is_not_there_is_dead_at_once() -> None:
    """One delivery finds out that nobody can be connected to; where somebody has served us it takes a window's
    worth.
    """
    turns: Turns[str] = Turns(20, adapts=True)
    unknown, known = turns.destination(b"u"), turns.destination(b"k")
    known.succeeded()
    for destination in (unknown, known):
        destination.failed(100.0, unreachable=True)
    assert turns.is_dead(b"u", 101.0) and not turns.is_dead(b"k", 101.0)
    unknown.succeeded()
    assert not turns.is_dead(b"u", 101.0)


def test_who_refuses_us_is_left_alone_at_once() -> None:
    """A destination that takes no login of ours is dead after the first one, also if it has served us before."""
    turns: Turns[str] = Turns(20, adapts=True)
    known = turns.destination(b"k")
    known.succeeded()
    known.failed(100.0, shut=True)
    assert turns.is_dead(b"k", 101.0) and not turns.is_dead(b"k", 101.0 + schedule.DEAD_S)


@pytest.mark.parametrize("proven, more", [(False, 1), (True, 5)])
def test_unproven_destinations_do_not_take_all(proven: bool, more: int) -> None:
    """While half of the deliveries are taken, who has not served us gets one at once, others their window."""
    turns: Turns[str] = Turns(20, adapts=True)
    for n in range(15):
        _add(turns, f"m{n}", [(b"d%d" % n, index) for index in range(10 if n == 0 else 1)])
    assert sorted(name for _, name, _ in _drain(turns)) == sorted(b"d%d" % n for n in range(15))
    if proven:
        turns.destination(b"d0").succeeded()
    for n in range(5):
        turns.done(turns.destination(b"d%d" % n))
    assert [name for _, name, _ in _drain(turns)] == [b"d0"] * more


def test_strangers_leave_places_free() -> None:
    """A quarter of the deliveries is for destinations that have served us, however many others wait; those come in
    turn.
    """
    turns: Turns[str] = Turns(20, adapts=True)
    for n in range(40):
        _add(turns, f"m{n}", [(b"silent%d" % n, 0)])
    strangers = [name for _, name, _ in _drain(turns)]
    assert len(strangers) == 15
    turns.destination(b"friend").succeeded()
    _add(turns, "f", [(b"friend", n) for n in range(9)])
    friends = [name for _, name, _ in _drain(turns)]
    assert friends == [b"friend"] * 5
    turns.done(turns.destination(b"friend"))
    assert [name for _, name, _ in _drain(turns)] == [b"friend"]
    for name in strangers[:3]:
        turns.done(turns.destination(name))
    assert len([name for _, name, _ in _drain(turns) if name != b"friend"]) == 3


def test_who_has_served_us_is_remembered() -> None:
    """Of a destination that nobody uses any more it is still known that it served us, until it fails."""
    turns: Turns[str] = Turns(20, adapts=True)
    for failure in (False, True):
        _add(turns, "m", [(b"d", 0)])
        (turn,) = [turns.next()]
        assert turn is not None
        if failure:
            for _ in range(6):
                turn[1].failed(0.0)
        else:
            turn[1].succeeded()
        turns.done(turn[1])
        turns.expire(schedule.DEAD_S)
        assert not turns._destinations
        assert turns.destination(b"d").proven is not failure
        turns._destinations.clear()


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The destination that has been unused longest is forgotten first."""
    monkeypatch.setattr(schedule, "PROVEN_MAX", 3)
    turns: Turns[str] = Turns(20, adapts=True)
    for n in range(5):
        _add(turns, "m", [(n, 0)])
        turn = turns.next()
        assert turn is not None
        turn[1].succeeded()
        turns.done(turn[1])
    assert list(turns._proven) == [2, 3, 4]


def test_unused_destinations_are_forgotten() -> None:
    """Nothing is kept of a destination that nobody uses and that gave no trouble."""
    turns: Turns[str] = Turns(20, adapts=True)
    for n in range(100):
        _add(turns, "m", [(b"d%d" % n, n)])
    while turns.busy or turns._ring:
        for _, name, _ in _drain(turns):
            turns.done(turns.destination(name))
    assert not turns._destinations


def test_a_limit_of_zero_holds() -> None:
    """concurrency 0 holds everything until it is raised."""
    turns: Turns[str] = Turns(0, adapts=False)
    _add(turns, "m", [(b"", 0)])
    assert turns.next() is None
    turns.set_limit(3)
    assert turns.next() is not None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60), st.integers(1, 9))
def test_everything_is_given_out_once(wanted: list[tuple[int, int]], limit: int) -> None:
    """Whatever order deliveries end in, each recipient is given out exactly once."""
    turns: Turns[int] = Turns(limit, adapts=True)
    for index, (message, name) in enumerate(wanted):
        _add(turns, message, [(name, index)])
    busy, seen = [], []
    while True:
        turn = turns.next()
        if turn is not None:
            seen += turn[2]
            busy.append(turn[1])
        elif busy:
            turns.done(busy.pop())
        else:
            break
    assert sorted(seen) == list(range(len(wanted)))


def test_new_and_deferred_mail_take_turns() -> None:
    """Neither a flood of new mail nor a due backlog keeps the other waiting."""
    backlog = Backlog()
    for n in range(3):
        backlog.add_fresh(b"new%d" % n)
        backlog.defer(b"old%d" % n, 10 + n)
    order = []
    while (found := backlog.next(100)) is not None:
        order.append(found[0])
    assert order == [b"new0", b"old0", b"new1", b"old1", b"new2", b"old2"]


def test_what_is_not_due_waits() -> None:
    """A deferred message is not tried before its time, and SIGALRM makes it due."""
    backlog = Backlog()
    backlog.defer(b"m", 50)
    assert backlog.next(49) is None
    assert backlog.next_due_s() == 50
    backlog.all_due()
    assert backlog.next(0) == (b"m", NOW)
    backlog.add_fresh(b"n")
    assert backlog.next(0) == (b"n", FRESH)
