"""What happens around a program's own work."""

import os
from pathlib import Path

import pytest

from qm.errors import Permanent, Temporary
from qm.unix.program import Argv, Env, Usage, program, ready


def _raising(error: BaseException | None) -> object:
    @program(at_home=False)
    def main(argv: Argv, env: Env) -> int:
        if error is not None:
            raise error
        return 3

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 3, ""),
        (Temporary("later", detail="disk full"), 111, "p: fatal: later (disk full)\n"),
        (Permanent("never"), 100, "p: fatal: never\n"),
        (Usage("usage: p"), 100, "p: fatal: usage: p\n"),
        (KeyboardInterrupt(), 111, ""),
    ],
)
def test_failures_become_exit_codes(
    error: BaseException | None, code: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each kind of failure has its exit code and one line that says why."""
    assert _raising(error)([b"/usr/bin/p"], {}) == code  # type: ignore[operator]
    assert capfd.readouterr().err == line


def test_the_unforeseen_is_temporary_and_says_where(capfd: pytest.CaptureFixture[str]) -> None:
    """A bug of ours is never permanent, and its line names the place."""
    assert _raising(ValueError("odd\nthing"))([b"p"], {}) == 111  # type: ignore[operator]
    line = capfd.readouterr().err
    assert line.startswith("p: alert: bug, please report: ValueError: odd?thing at test_program.py:")
    assert line.count("\n") == 1


def test_a_program_may_have_codes_of_its_own() -> None:
    """A program with another table says so."""

    @program(at_home=False, temporary=81, permanent=31)
    def main(argv: Argv, env: Env) -> int:
        raise {b"t": Temporary, b"p": Permanent, b"b": KeyError}[argv[1]]("x")

    assert [main([b"p", letter], {}) for letter in (b"t", b"p", b"b")] == [81, 31, 81]


def test_a_program_works_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """QMHOME is the working directory; without it nothing is done."""
    monkeypatch.chdir("/")

    @program()
    def main(argv: Argv, env: Env) -> int:
        return 0 if Path.cwd() == tmp_path else 1

    assert main([b"p"], {b"QMHOME": os.fsencode(tmp_path)}) == 0
    assert main([b"p"], {b"QMHOME": os.fsencode(tmp_path / "none")}) == 111
    assert "cannot enter the home directory" in capfd.readouterr().err


def test_ready_is_said_once_and_forgotten() -> None:
    """Who waits for us reads one line; our own programs do not inherit the variable."""
    reader, writer = os.pipe()
    env: Env = {b"QMREADY": b"%d" % writer, b"A": b"b"}
    ready(env, b"2525")
    assert os.read(reader, 100) == b"2525\n"
    assert os.read(reader, 100) == b""
    assert env == {b"A": b"b"}
    os.close(reader)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"99999"])
def test_a_senseless_qmready_is_no_error(value: bytes) -> None:
    """Nobody waits then."""
    ready({b"QMREADY": value})
    ready({})
