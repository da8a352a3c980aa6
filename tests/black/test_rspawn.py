"""qm-rspawn: roles, limits, what it does when something dies (qmail.md 9, 11)."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.wire.delivery import Health
from tests.harness.barehome import OWNER, ROLES, BareHome
from tests.harness.peers import ScriptedMx
from tests.harness.rspawn import Rspawn, rspawn
from tests.harness.waiting import wait_for

BOB = b"bob@x.test"


@pytest.fixture
def home(tmp_path: Path) -> BareHome:
    return BareHome(tmp_path / "home", None)


@pytest.fixture
def mx(tmp_path: Path, home: BareHome) -> Iterator[ScriptedMx]:
    """One that never answers DATA for x.test; it takes other mail."""
    with ScriptedMx(tmp_path, {"DATA": ["!hang"]}) as hanging, ScriptedMx(tmp_path) as good:
        home.control("smtproutes", f"x.test:127.0.0.1:{hanging.port}\n:127.0.0.1:{good.port}\n")
        yield hanging


def hung(spawner: Rspawn, mx: ScriptedMx, recipient: bytes = BOB) -> int:
    """Give a delivery that waits for DATA's answer; its number."""
    before = mx.lines().count("DATA")
    number = spawner.give(recipient)
    wait_for(lambda: mx.lines().count("DATA") > before, "DATA")
    return number


@pytest.mark.needs_root
def test_nobody_is_root(home: BareHome, mx: ScriptedMx) -> None:
    """Started by root, it and its workers are qmailr for good, with one group."""
    with rspawn(home) as spawner:
        hung(spawner, mx)
        for pid in [spawner.process.pid, *spawner.workers()]:
            status = Path(f"/proc/{pid}/status").read_text()
            uid, gid = ROLES["qmailr"], 64000
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
            assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in status
            assert f"Groups:\t{gid} \n" in status
        spawner.kill()


@pytest.mark.needs_root
def test_a_private_system(tmp_path: Path, mx: ScriptedMx) -> None:
    """A normal user's rspawn delivers."""
    home = BareHome(tmp_path / "own", OWNER)
    with ScriptedMx(tmp_path) as good:
        home.control("smtproutes", f":127.0.0.1:{good.port}\n")
        home.own()
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"


def test_a_worker_dies(home: BareHome, mx: ScriptedMx) -> None:
    """A worker that dies makes its delivery temporary, and nothing else."""
    with rspawn(home) as spawner:
        number = hung(spawner, mx)
        (worker,) = spawner.workers()
        os.kill(worker, signal.SIGKILL)
        outcome = spawner.outcome(number)
        assert (outcome.results[0].letter, outcome.health) == (b"Z", Health.UNKNOWN)
        assert spawner.result(b"bob@y.test").letter == b"K"


def test_send_leaves(home: BareHome, tmp_path: Path) -> None:
    """When send has gone, what is being delivered is delivered to its end, with a goodbye."""
    with ScriptedMx(tmp_path) as good:
        home.control("smtproutes", f":127.0.0.1:{good.port}\n")
        spawner = Rspawn(home)
        for _ in range(3):
            spawner.give(BOB)
        assert spawner.leave() == 0
        assert len(good.texts()) == 3
        wait_for(lambda: good.lines()[-1] == "QUIT", "goodbye")


def test_sigterm(home: BareHome, tmp_path: Path) -> None:
    """SIGTERM: no more is taken, what is being done is reported, exit 0."""
    with ScriptedMx(tmp_path, {".": ["250 ok"]}) as good:
        home.control("smtproutes", f":127.0.0.1:{good.port}\n")
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"
            number = spawner.give(BOB)
            wait_for(lambda: good.lines().count("DATA") == 2, "the second delivery")
            spawner.process.send_signal(signal.SIGTERM)
            assert spawner.outcome(number).results[0].letter == b"K"
            assert spawner.process.wait(15) == 0


def test_as_many_as_there_are_workers(home: BareHome, mx: ScriptedMx, tmp_path: Path) -> None:
    """Past control/concurrencyremote nothing more is read: send's channel fills; then it goes on."""
    home.control("concurrencyremote", "2\n")
    with rspawn(home) as spawner:
        first, second = hung(spawner, mx), hung(spawner, mx)
        waiting = [spawner.give(b"u%d@y%d.test" % (n, n)) for n in range(5)]
        assert len(spawner.workers()) == 2
        for worker in spawner.workers():
            os.kill(worker, signal.SIGKILL)
        found = {outcome.number: outcome for outcome in (spawner.outcome() for _ in range(7))}
        assert set(found) == {first, second, *waiting}
        assert all(found[number].results[0].letter == b"K" for number in waiting)


def test_idle_workers_give_way(home: BareHome, mx: ScriptedMx) -> None:
    """A worker that waits for more mail of its destination makes room for another destination."""
    home.control("concurrencyremote", "2\n")
    home.control("smtproutes", "".join(f"y{n}.test:127.0.0.{n + 2}:{mx.port}\n" for n in range(6)))
    with rspawn(home) as spawner:
        for n in range(6):
            spawner.deliver(b"bob@y%d.test" % n)
            assert len(spawner.workers()) <= 3  # one may just be leaving


def test_smtproutes_changes(home: BareHome, tmp_path: Path) -> None:
    """A changed smtproutes takes effect at SIGHUP, as in send; a broken one is named, and what was holds."""
    with ScriptedMx(tmp_path) as one, ScriptedMx(tmp_path) as other:
        home.control("smtproutes", f":127.0.0.1:{one.port}\n")
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"
            home.control("smtproutes", f":127.0.0.1:{other.port}\n")
            assert spawner.result(BOB).letter == b"K" and not other.texts()
            spawner.process.send_signal(signal.SIGHUP)
            wait_for(lambda: spawner.result(BOB).letter == b"K" and other.texts(), "the other relay")
            home.control("smtproutes", "x.test:[junk\n")
            spawner.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "control/smtproutes: x.test" in spawner.log(), "a warning")
            assert spawner.result(BOB).letter == b"K"


def test_different_destinations(home: BareHome, mx: ScriptedMx) -> None:
    """A delivery to several destinations is nobody's: it waits, with a warning."""
    with rspawn(home) as spawner:
        results = spawner.deliver(BOB, b"eve@y.test").results
        assert [result.letter for result in results] == [b"Z", b"Z"]
        assert "different destinations" in spawner.log()


@pytest.mark.parametrize("record", [b"junk", b"\0", b"1\0x\0", b"x" * 60_000])
def test_a_bad_record(home: BareHome, record: bytes) -> None:
    """A send that sends nonsense is left, with an alert."""
    with rspawn(home, alerts=["bad record"]) as spawner:
        spawner.send(record)
        assert spawner.process.wait(15) == 0


def test_no_message(home: BareHome, mx: ScriptedMx) -> None:
    """A delivery without its descriptor is temporary."""
    with rspawn(home) as spawner:
        from qm.wire import queueid
        from qm.wire.delivery import Addressee, Delivery, pack_delivery

        what = Delivery(7, queueid.make(1, 1), b"", b"a@b", (Addressee(0, BOB),))
        spawner.channel.send(pack_delivery(what))
        assert spawner.outcome(7).results[0].letter == b"Z"


@pytest.mark.parametrize(
    ("name", "text"), [("me", "\n"), ("helohost", "a b\n"), ("smtproutes", "x:[y\n"), ("dnsservers", "ns.test\n")]
)
def test_a_broken_start(home: BareHome, name: str, text: str) -> None:
    """A control file that makes no sense is named at the start, with exit 111."""
    home.control(name, text)
    with rspawn(home) as spawner:
        assert spawner.process.wait(15) == 111
        assert f"control/{name}" in spawner.log()


# QMAILREMOTE

PROGRAM = """#!/bin/sh
echo "$@" > args
cat > message
printf 'r\\0hno such user\\n\\0Ktaken\\n\\0'
"""


def program(home: BareHome, text: str) -> dict[str, str]:
    path = home.folder / "remote"
    path.write_text(text)
    path.chmod(0o755)
    home.folder.chmod(0o777)
    return {"QMAILREMOTE": "./remote"}


def test_another_remote(home: BareHome) -> None:
    """QMAILREMOTE names the program that delivers, with qmail-remote's arguments, message and reports."""
    with rspawn(home, program(home, PROGRAM)) as spawner:
        bob, eve = spawner.deliver(BOB, b"eve@x.test", text=b"the message\n").results
        assert (bob.letter, bob.text) == (b"K", b"taken\n")
        assert (eve.letter, eve.text) == (b"D", b"no such user\n")
    assert (home.folder / "args").read_text() == "x.test ann@me.example bob@x.test eve@x.test\n"
    assert (home.folder / "message").read_text() == "the message\n"


@pytest.mark.parametrize(
    ("body", "letter"),
    [
        ("exit 111", b"Z"),
        ("exit 100", b"D"),
        ("exit 1", b"D"),
        ("kill -9 $$", b"Z"),
        ("exit 0", b"Z"),
        ("printf x", b"Z"),
    ],
)
def test_how_it_ends(home: BareHome, body: str, letter: bytes) -> None:
    """Its exit code and its silence mean what they do to qmail-rspawn."""
    with rspawn(home, program(home, f"#!/bin/sh\n{body}\n")) as spawner:
        assert spawner.result(BOB).letter == letter


def test_what_it_leaves_behind(home: BareHome) -> None:
    """It is done when its process is; a process that it leaves, with its output open, holds up nothing."""
    body = "#!/bin/sh\nsleep 1000 &\necho $! > left\nprintf 'r\\0Ktaken\\n\\0'\n"
    with rspawn(home, program(home, body)) as spawner:
        assert spawner.result(BOB).text == b"taken\n"
    os.kill(int((home.folder / "left").read_text()), signal.SIGKILL)


def test_no_such_remote(home: BareHome) -> None:
    """A program that is not there is a permanent failure, as in qmail: whoever named it must look."""
    with rspawn(home, {"QMAILREMOTE": "./nothing"}) as spawner:
        assert spawner.result(BOB).letter == b"D"
