"""The next program of a command line: ours called, a stranger's exec'd."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from qm.programs import PROGRAMS
from qm.unix import chain
from qm.unix.program import Argv, Env

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # pytest-xdist has threads


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three programs of ours: one warm, one not, one for a spawner."""
    warm, plain, worker = ModuleType("test_warm"), ModuleType("test_plain"), ModuleType("test_worker")
    prepared: list[Argv] = []

    def prepare(argv: Argv, env: Env) -> chain.Runner:
        prepared.append(argv)
        return lambda conn_env: len(prepared) * 10 + len(conn_env)

    vars(warm)["warm"] = prepare
    vars(plain)["main"] = lambda argv, env: len(argv) * 10 + len(env)
    vars(worker)["work"] = lambda record, descriptors: record
    for module in (warm, plain, worker):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(PROGRAMS, f"qm-{module.__name__}", module.__name__)
    return None


def _status(action: object) -> int:
    """The exit code of a child that does *action*; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            action()  # type: ignore[operator]
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.usefixtures("programs")
def test_a_warm_program_is_prepared_once() -> None:
    """What prepare gives serves any number of connections, each with its environment."""
    run = chain.prepare([b"qm-test_warm"], {})
    assert [run({}), run({b"A": b"b"}), run({})] == [10, 11, 10]
    assert chain.is_warm([b"qm-test_warm"], {})


@pytest.mark.usefixtures("programs")
def test_a_program_that_cannot_be_warm_is_called_each_time() -> None:
    """main is called with the command line and the connection's environment."""
    run = chain.prepare([b"qm-test_plain", b"x"], {})
    assert run({b"A": b"b"}) == 21
    assert not chain.is_warm([b"qm-test_plain"], {})


@pytest.mark.usefixtures("programs")
def test_a_spawners_job_function() -> None:
    """worker gives the work of one of our programs and of no other."""
    assert chain.worker(b"qm-test_worker")(b"x", []) == b"x"
    with pytest.raises(ValueError):
        chain.worker(b"cat")


@pytest.mark.usefixtures("programs")
def test_which_programs_are_ours() -> None:
    """A bare name, or a path into our own bin; the same name elsewhere is a stranger's, and so is all with QMCOLD."""
    assert chain.is_ours(b"qm-smtpd")
    assert chain.is_ours(os.fsencode(chain.BIN) + b"/qm-smtpd")
    for name in (b"/usr/local/bin/qm-smtpd", b"./qm-smtpd", b"cat", b"", b"\xff", b"qm-smtpd/"):
        assert not chain.is_ours(name)
    assert not chain.is_warm([b"qm-test_warm"], {b"QMCOLD": b""})


def test_path_does_not_count_for_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A program of that name in PATH is not run for a bare name of ours."""
    (tmp_path / "bouncesaying").write_text("#!/bin/sh\necho a stranger\n")
    (tmp_path / "bouncesaying").chmod(0o755)
    env = {b"PATH": os.fsencode(tmp_path)}
    assert chain.prepare([b"bouncesaying", b"it is ours"], env)(env) == 100
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "it is ours\n")


def test_our_bin_is_at_the_end_of_the_path_once() -> None:
    """A stranger's program finds ours after all else."""
    ours = os.fsencode(chain.BIN)
    path = chain.search_path({b"PATH": b"/bin"})
    assert path == b"/bin:" + ours
    assert chain.search_path({b"PATH": path}) == path
    assert chain.search_path({}).endswith(b":" + ours)


def test_a_stranger_is_execd_with_the_environment_and_no_signal_ignored(tmp_path: Path) -> None:
    """The program has the environment that it is given, default signals, none blocked, and its exit code counts."""
    out = tmp_path / "out"
    script = b'echo "$X:$Y" > "$OUT"; grep -E "Sig(Blk|Ign)" /proc/self/status >> "$OUT"; exit 7'
    env = {b"OUT": os.fsencode(out), b"X": b"1", b"PATH": b"/usr/bin:/bin"}

    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        chain.prepare([b"sh", b"-c", script], {})(env)

    assert _status(run) == 7
    lines = out.read_text().split("\n")
    assert lines[0] == "1:"
    masks = {line.split(":")[0]: int(line.split(":")[1], 16) for line in lines[1:3]}
    assert masks["SigBlk"] == 0
    assert not masks["SigIgn"] & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_descriptors_above_2_are_not_inherited(tmp_path: Path) -> None:
    """A stranger's program gets 0, 1 and 2; everything that we open is close-on-exec."""
    out = tmp_path / "out"
    file = os.open("/dev/null", os.O_RDONLY)
    script = f"for fd in /proc/self/fd/*; do test {file} = ${{fd##*/}} && echo leak; done > {out}; exit 0"
    assert _status(lambda: chain.execute([b"sh", b"-c", script.encode()], {})) == 0
    os.close(file)
    assert out.read_text() == ""


@pytest.mark.parametrize(("name", "code"), [("none", 100), ("not-executable", 100), ("busy", 111)])
def test_a_program_that_cannot_run(tmp_path: Path, name: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    """What may work later is temporary, the rest permanent, and the log says which program (qmail.md 2.2)."""
    (tmp_path / "not-executable").write_text("")
    with (tmp_path / "busy").open("wb") as busy:  # ETXTBSY
        busy.write(Path("/bin/true").read_bytes())
        busy.flush()
        os.chmod(busy.fileno(), 0o700)
        assert _status(lambda: chain.execute([os.fsencode(tmp_path / name)], {})) == code
    assert capfd.readouterr().err.startswith(f"{name}: fatal: cannot run: ")
