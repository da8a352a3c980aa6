"""qm-remote's output, and what rspawn makes of such output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.delivery import Result
from qm.wire.remotereport import print_out, read_in


@pytest.mark.parametrize(
    ("output", "want"),
    [
        (b"ssoft\0Dgiven up\0", [Result(b"Z", b"softgiven up")]),  # qmail.md section 29
        (b"r\0Kaccepted\0", [Result(b"K", b"accepted")]),
        (b"Zlater\0", [Result(b"Z", b"later")]),
        (b"hno\0Dgiven up\0", [Result(b"D", b"nogiven up")]),
        (b"r\0Zlater\0", [Result(b"Z", b"later")]),
        (b"hno\0Kaccepted\0", [Result(b"D", b"no")]),
        (b"r\0hno\0Kaccepted\0", [Result(b"K", b"accepted"), Result(b"D", b"no")]),
        (b"r\0", [Result(b"D", b"")]),
        (b"rubbish\0", [Result(b"D", b"ubbish")]),
        (b"Kcut off by a crash", None),
        (b"", None),
    ],
)
def test_read_in(output: bytes, want: list[Result] | None) -> None:
    """qmail's rules: the recipient's report first, then the message's; silence is temporary."""
    found = read_in(output, len(want) if want else 1)
    assert found == want if want else [result.letter for result in found] == [b"Z"]


LINES = st.sampled_from([b"one\n", b"two\n", b"192.0.2.1 does not like recipient.\n"])
RESULTS = st.lists(st.builds(Result, st.sampled_from([b"K", b"Z", b"D"]), LINES), min_size=1, max_size=5)


@given(RESULTS)
def test_print_out_and_read_in(results: list[Result]) -> None:
    """Each recipient's letter survives the way through the output, and so does what was said of a failure."""
    found = read_in(print_out(results), len(results))
    assert [result.letter for result in found] == [result.letter for result in results]
    for before, after in zip(results, found, strict=True):
        assert before.letter == b"K" or after.text.startswith(before.text)


@given(st.binary(max_size=40), st.integers(1, 3))
def test_any_output(output: bytes, count: int) -> None:
    """Any bytes give each recipient a result."""
    found = read_in(output, count)
    assert len(found) == count and all(result.letter in (b"K", b"Z", b"D") for result in found)
