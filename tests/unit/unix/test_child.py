"""Programs that we run and wait for."""

import os
from collections.abc import Iterator

import pytest

from qm.errors import Temporary
from qm.unix import child
from tests.crash.faults import killed

ENV = {b"PATH": b"/usr/bin:/bin", b"X": b"y"}


@pytest.mark.parametrize(
    ("command", "code"), [(b"exit 0", 0), (b"exit 7", 7), (b"test $X = y", 0), (b"kill -PIPE $$; exit 3", None)]
)
def test_run(command: bytes, code: int | None) -> None:
    """The exit code of a program is told; one that was killed, also by SIGPIPE, is a temporary failure."""
    argv = [b"sh", b"-c", command]
    if code is None:
        with pytest.raises(Temporary, match="signal 13"):
            child.run(argv, ENV)
    else:
        assert child.run(argv, ENV) == code


def test_no_such_program() -> None:
    """What cannot be exec'd counts as its exit 100."""
    assert child.run([b"no-such-program"], ENV) == 100


def test_feed() -> None:
    """A program reads what it is fed to the end, and no more."""
    pieces = [b"x" * 70_000, b"", b"y"]
    assert child.feed([b"sh", b"-c", b"test $(wc -c) = 70001"], ENV, pieces) == 0


def test_a_program_that_does_not_read() -> None:
    """It may leave what it does not want."""
    assert child.feed([b"sh", b"-c", b"exit 5"], ENV, [b"x" * 1_000_000] * 3) == 5


def test_a_message_that_breaks_off(tmp_path: object) -> None:
    """If the message cannot be read to its end, the program does not live to take the half of it for the whole."""
    path = f"{tmp_path}/taken"

    def half() -> Iterator[bytes]:
        yield b"half"
        raise Temporary("no more")

    with pytest.raises(Temporary, match="no more"):
        child.feed([b"sh", b"-c", b"cat >/dev/null; echo >" + os.fsencode(path)], ENV, half())
    assert not os.path.exists(path)


def test_ours_in_the_same_way() -> None:
    """One of our programs runs in the child, not in us."""
    assert child.run([b"except", b"false"], ENV) == 0
    assert child.feed([b"except", b"sh", b"-c", b"grep -q x"], ENV, [b"x\n"]) == 100


def test_without_a_message() -> None:
    """A closed descriptor 0 is a temporary failure, not an empty message."""

    def closed() -> None:
        os.close(0)
        with pytest.raises(Temporary, match="descriptor 0"):
            child.feed([b"true"], ENV, [b"x"])

    assert killed(closed) == 0
