"""Queue IDs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import queueid

TIME_NS = st.integers(0, (1 << 63) - 1)
PID = st.integers(1, 1 << 22)


@given(TIME_NS, PID)
def test_an_id_is_valid_and_tells_its_time(time_ns: int, pid: int) -> None:
    """An ID has 18 characters, passes its own check and gives the birth back."""
    name = queueid.make(time_ns, pid)
    assert len(name) == 18
    assert queueid.valid(name)
    assert queueid.time_ns(name) == time_ns


@given(TIME_NS, PID, TIME_NS, PID)
def test_ids_sort_by_age(first_ns: int, first_pid: int, second_ns: int, second_pid: int) -> None:
    """The order of IDs is the order of (time, process), and two of different births never coincide."""
    first, second = queueid.make(first_ns, first_pid), queueid.make(second_ns, second_pid)
    assert (first < second) == ((first_ns, first_pid) < (second_ns, second_pid))
    assert (first == second) == ((first_ns, first_pid) == (second_ns, second_pid))


@given(TIME_NS, PID, st.sampled_from([b"b", b"d", b"s"]))
def test_a_derived_id_is_valid_and_the_same_each_time(time_ns: int, pid: int, letter: bytes) -> None:
    """A report's ID is a function of the message's, and tells the same birth."""
    name = queueid.make(time_ns, pid)
    derived = queueid.report_of(name, letter)
    assert queueid.valid(derived)
    assert derived == queueid.report_of(name, letter) != name
    assert queueid.time_ns(derived) == time_ns


ZEROS = b"0" * 18


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"..", b"../../../etc/shadow", ZEROS[1:], ZEROS + b"0", ZEROS[1:] + b"u", ZEROS + b"\n", ZEROS + b"x"],
)
def test_what_is_no_id_is_refused(name: bytes) -> None:
    """No name that could lead out of a directory, and none that we would not make, passes."""
    assert not queueid.valid(name)


@given(st.binary(max_size=24))
def test_a_valid_name_is_a_plain_file_name(name: bytes) -> None:
    """Whatever passes the check is safe as a file's name."""
    if queueid.valid(name):
        assert (name.isalnum() and name.islower()) or name.isdigit()
