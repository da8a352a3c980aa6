"""What a role or a user may plant in its own directories for those who trust it less, or more, than it deserves.

Links, hard links, FIFOs, devices, sockets and directories in the place of every file that a program opens where another
can write: nothing outside changes, nobody is held up, and the log says what is wrong.
"""

import os
import select
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from qm.disk import layout
from qm.disk.layout import Kind
from tests.harness.dialogue import Dialogue
from tests.harness.importing import Qmail, qm
from tests.harness.machine import machine_in
from tests.harness.suite import BIN, DOMAIN, Suite
from tests.harness.waiting import LIMIT_S

pytestmark = pytest.mark.needs_root

KINDS: Final = [  # a directory in the place of a directory is none
    "link",
    "hard link",
    "dangling link",
    "link to itself",
    "FIFO",
    "device",
    "socket",
    "directory",
]
FILES: Final = ["hard link"]  # what it makes is a regular file, if not the planter's own
ANN: Final = f"ann@{DOMAIN}"
MESSAGE: Final = b"Subject: hello\r\n\r\nbody\r\n"
SECRET: Final = "no business of theirs\n"


class Ground:
    """A suite, and a file outside it that nobody but root may see."""

    def __init__(self, suite: Suite | None, folder: Path) -> None:
        self._suite = suite
        self.outside = folder / "outside"
        self.outside.write_text(SECRET)
        self.outside.chmod(0o600)
        self._before = self._state()

    @property
    def suite(self) -> Suite:
        assert self._suite is not None, "no suite is in this test"
        return self._suite

    def _state(self) -> tuple[object, ...]:
        status = self.outside.stat()
        return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, self.outside.read_text()

    def plant(self, kind: str, path: Path) -> None:
        """Put something in the place of *path*, as its directory's owner could, or somebody who is root for him."""
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.real"))
        path.unlink(missing_ok=True)
        if kind == "link":
            path.symlink_to(self.outside)
        elif kind == "hard link":
            os.link(self.outside, path)
        elif kind == "dangling link":
            path.symlink_to(self.outside.with_name("made"))
        elif kind == "link to itself":
            path.symlink_to(path.name)
        elif kind == "FIFO":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: who reads it all never ends
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                folder = os.open(path.parent, os.O_PATH)
                listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path of any length
                os.close(folder)
        else:
            path.mkdir()
        if kind != "hard link":
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(0o777)  # so that who opens it gets it

    def clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if path.with_name(f"{path.name}.real").exists():
            path.with_name(f"{path.name}.real").rename(path)

    def check(self) -> None:
        assert self._state() == self._before, "what is outside has changed"
        assert not self.outside.with_name("made").exists()

    def check_that_mail_moves(self) -> None:
        """To another mailbox, by SMTP and POP3."""
        count = len(self.suite.mail("bea"))
        self.suite.send(f"bea@{DOMAIN}", MESSAGE)
        self.suite.wait_for_mail(count + 1, "bea")
        self.suite.pop3("bea").quit()


@pytest.fixture
def ground(make_suite: Callable[..., Suite], open_folder: Path) -> Iterator[Ground]:
    suite = make_suite(open_folder)
    suite.add_user("bea", "secret")
    ground = Ground(suite, open_folder)
    yield ground
    ground.check()


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_maildir(ground: Ground, kind: str) -> None:
    """Beside messages POP3 sees none; a lock or sweep opens none; a delivery is not disturbed."""
    suite, maildir = ground.suite, ground.suite.maildir()
    suite.start()
    for name in ("new/1.planted", "cur/1.planted:2,S", "tmp/1.planted"):
        ground.plant(kind, maildir / name)
        os.utime(maildir / name, (1, 1), follow_symlinks=False) if kind not in ("hard link", "link") else None
    suite.send(ANN, MESSAGE)
    suite.wait_for_log(r"delivery \d+: success")
    client = suite.pop3()
    count = client.stat()[0]
    assert count == (2 if kind in FILES else 1)  # the same in new and cur: one message
    client.uidl()
    for number in range(1, count + 1):
        client.dele(number)
    client.quit()
    assert [path.name for path in maildir.glob("new/*")] == ([] if kind in FILES else ["1.planted"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_of_a_maildir(ground: Ground, kind: str) -> None:
    """POP3 answers at once whatever the lock file is, and does not write to it."""
    ground.suite.start()
    ground.plant(kind, ground.suite.maildir() / "pop3d.lock")
    with Dialogue(ground.suite.pop3_port) as client:
        assert client.line()[:3] == b"+OK"
        assert client.ask(b"USER ann") == b"+OK"
        assert client.ask(b"PASS secret").startswith((b"+OK", b"-ERR [SYS/TEMP]"))


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("name", ["tmp", "new", "cur", ""])
def test_in_the_place_of_a_maildir(ground: Ground, kind: str, name: str) -> None:
    """A delivery to what is no Maildir waits, says why, and holds up no other."""
    suite = ground.suite.start()
    place = suite.maildir() / name if name else suite.maildir()
    ground.plant(kind, place)
    suite.send(ANN, MESSAGE)
    suite.wait_for_log(r"delivery \d+: (deferral: Unable_to_deliver_to_the_Maildir|success)")
    ground.check_that_mail_moves()
    ground.check()
    ground.clear(place)
    suite.signal(14)
    suite.wait_for_mail()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["ann", "alias"])
def test_in_the_place_of_a_dot_qmail_file(ground: Ground, kind: str, who: str) -> None:
    """userd opens none; local reads regular files only, with no right but its user's; other mail goes on."""
    suite = ground.suite.start()
    folder = suite.home / "alias" if who == "alias" else suite.home / "home/ann"
    ground.plant(kind, folder / ".qmail-trap")
    address = f"trap@{DOMAIN}" if who == "alias" else f"ann-trap@{DOMAIN}"
    with suite.smtp() as client:
        client.ehlo()
        client.mail("bob@elsewhere.example")
        code, _ = client.rcpt(address)
        if code == 250:
            assert client.data(MESSAGE)[0] == 250
    if code == 250:
        suite.wait_for_log(r"delivery \d+: (deferral|failure|success)")
    else:
        assert code == 550, code
    ground.check_that_mail_moves()
    assert SECRET.encode() not in b"".join(suite.mail("bea"))
    assert "no business" not in suite.log()


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_an_mbox(ground: Ground, kind: str) -> None:
    """A delivery waits, and says why; what is there is neither written nor waited for."""
    suite = ground.suite
    suite.dot_qmail("ann", "./Mailbox\n")
    suite.start()
    ground.plant(kind, suite.home / "home/ann/Mailbox")
    suite.send(ANN, MESSAGE)
    said = suite.wait_for_log(
        r"delivery \d+: (deferral: Unable_to_deliver_to_the_mbox|deferral: The_mbox_is_not|success)"
    )
    assert "success" not in said[0] or kind == "dangling link"
    ground.check_that_mail_moves()
    if kind == "dangling link":  # a user may keep his mbox elsewhere; this one may not write there
        suite.wait_for_log("Permission denied")


@pytest.mark.alerts("is damaged|cannot read")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", ["new", "cur"])
def test_in_the_queue(ground: Ground, kind: str, folder: str) -> None:
    """What looks like a message and is no file goes to queue/bad, with an alert; send goes on, so do root's tools."""
    suite = ground.suite
    name = "1htqg08pje36z00gpz"
    suite.start().stop()  # now there is a queue
    ground.plant(kind, suite.home / "queue" / folder / name)
    suite.start()
    ground.check_that_mail_moves()
    if kind not in FILES:
        bad = suite.home / "queue/bad" / name
        suite.wait_for(lambda: os.path.lexists(bad), "what was planted, in queue/bad")
        suite.wait_for_log(f"alert: {name} is damaged")
    else:
        suite.wait_for_log(f"alert: cannot read {name} in the queue: Permission denied")
    for program in ("qm-qread", "qm-qstat"):
        assert suite.run(program).returncode in (0, 111)


@pytest.mark.alerts("cannot|state")
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_a_state_file(ground: Ground, kind: str) -> None:
    """What happened to recipients is written to no other file; the message waits, and send does not."""
    suite = ground.suite
    suite.dot_qmail("ann", "|exit 111\n")
    suite.start()
    suite.send([ANN, f"bea@{DOMAIN}"], MESSAGE)
    (path,) = suite.wait_for(lambda: list(suite.home.glob("queue/state/*")), "its state")
    suite.wait_for_mail(1, "bea")
    suite.stop()
    ground.plant(kind, path)
    suite.start()
    ground.check_that_mail_moves()
    assert suite.run("qm-qread").returncode in (0, 111)
    assert (suite.home / "queue/cur" / path.name).exists()


@pytest.mark.alerts("lines lost")
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_the_log(ground: Ground, kind: str) -> None:
    """The logger writes into no other file, and nobody waits for it; when the place is clear it says what was lost."""
    suite = ground.suite.start()
    current = suite.home / "log/current"
    ground.plant(kind, current)
    suite.signal(1)
    ground.suite.send(f"bea@{DOMAIN}", MESSAGE)
    suite.wait_for_mail(1, "bea")
    ground.check()
    if kind != "dangling link":
        ground.clear(current)
        suite.signal(1)
        suite.wait_for(lambda: suite.send(ANN, MESSAGE) and current.exists() and "lines lost" in current.read_text())


QUEUES_OWN: Final = [place.path for place in layout.PLACES if os.path.dirname(place.path) == "queue"]


def _start_once(suite: Suite) -> tuple[bool, str]:
    """Run qm-start until it serves or ends by itself; whether it served, and what it said."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    env = {**suite.env, "QMREADY": str(writer)}
    command = ["/usr/bin/python3", "-bb", "-IS", str(BIN / "qm-start"), "./Maildir/"]
    with subprocess.Popen(command, env=env, cwd="/", pass_fds=[writer], stderr=subprocess.PIPE) as process:
        os.close(writer)
        served = bool(select.select([reader], [], [], LIMIT_S)[0] and os.read(reader, 1))
        os.close(reader)
        if served:
            assert suite.queue(b"Subject: x\n\nx\n", f"F\0Tbea@{DOMAIN}\0\0".encode()) in (0, 71, 81)
            process.terminate()
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == (0 if served else 111), said
    return served, said.decode()


@pytest.mark.parametrize("path", QUEUES_OWN)
def test_in_the_place_of_what_the_queue_stands_on(ground: Ground, path: str) -> None:
    """Locks, door, trigger and directories: the programs serve or end and say what is in the way; root's tools end."""
    suite = ground.suite
    _start_once(suite)  # now there is a queue
    for kind in KINDS:
        ground.plant(kind, suite.home / path)
        served, said = _start_once(suite)
        assert served or path in said, (kind, said)
        for program in ("qm-qread", "qm-qstat", "qm-rc"):
            assert suite.run(program, *["status"] * (program == "qm-rc")).returncode in (0, 3, 111), kind
        ground.check()
        ground.clear(suite.home / path)
    served, said = _start_once(suite)
    assert served, said


@pytest.mark.parametrize("folder", ["queue/tmp", "queue/bad", "sts"])
def test_litter(ground: Ground, folder: str) -> None:
    """What lies where nobody looks for it by name: old files of queue/tmp go, the rest stays; mail moves."""
    suite = ground.suite
    suite.start().stop()
    places = [suite.home / folder / f"{kind.replace(' ', '-')}.example" for kind in KINDS]
    for kind, place in zip(KINDS, places, strict=True):
        ground.plant(kind, place)
        if kind not in FILES:  # its times are not the planter's to change
            os.utime(place, (1, 1), follow_symlinks=False)
    suite.start()
    ground.check_that_mail_moves()
    for program in ("qm-qread", "qm-qstat"):
        assert suite.run(program).returncode == 0
    assert suite.run("qm", "check-install").returncode in (0, 1)
    kept = {place.name for place in places if os.path.lexists(place)}
    if folder == "queue/tmp":
        assert kept == {"hard-link.example", "directory.example"}
    else:
        assert len(kept) == len(KINDS)


def test_in_the_place_of_a_held_message(ground: Ground) -> None:
    """qm hold, and who gives up what is too old, see nothing in it, and are not kept; mail moves."""
    suite = ground.suite
    suite.allowed_alerts.append("")
    suite.start().stop()
    names = [f"{number:018}" for number in range(len(KINDS))]  # older than any message
    for kind, name in zip(KINDS, names, strict=True):
        ground.plant(kind, suite.home / "queue/held" / name)
    suite.start()
    ground.check_that_mail_moves()
    for verb in ("show", "release", "delete"):
        for name in names:
            suite.run("qm", "hold", "list")
            assert suite.run("qm", "hold", verb, name).returncode in (0, 1, 100, 111), (verb, name)
            ground.check()
    ground.check_that_mail_moves()
    assert not any(name in os.listdir(suite.home / "queue/state") for name in names)


def test_in_the_place_of_an_imported_message(ground: Ground) -> None:
    """An import removes what it does not know, follows nothing, and says what it cannot let go; mail moves."""
    suite = ground.suite
    qmail = Qmail(suite.home.parent / "qmail")
    (qmail.home / "control/me").write_text(f"{DOMAIN}\n")
    suite.start()
    assert qm(suite, "import", "qmail", str(qmail.home), "--queue").returncode == 0
    for kind in KINDS:
        for name, line in (("litter", ""), (f"{KINDS.index(kind):018}", f"{KINDS.index(kind):018} qmail 1\n")):
            path = suite.home / "queue/import" / name
            ground.plant(kind, path)
            with (suite.home / "imported").open("a") as memory:
                memory.write(line)
            done = qm(suite, "import", "qmail", str(qmail.home), "--queue")
            assert done.returncode == (111 if line or kind == "directory" else 0), (kind, name, done.stdout)
            assert ("waits for the next run" in done.stderr) == (done.returncode == 111)
            if os.path.lexists(path):
                ground.clear(path)
            ground.check()
    ground.check_that_mail_moves()


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_a_database_of_aliases(ground: Ground, kind: str) -> None:
    """fastforward, as the alias user, reads none and waits for none: the mail waits, or what is no database is said."""
    suite = ground.suite
    suite.dot_qmail("alias", "|fastforward aliases.cdb\n", "-list")
    suite.start()
    ground.plant(kind, suite.home / "alias/aliases.cdb")
    suite.send(f"list@{DOMAIN}", MESSAGE)
    suite.wait_for_log(r"delivery \d+: deferral: .*aliases\.cdb")
    ground.check_that_mail_moves()
    assert "no business" not in suite.log()


@pytest.mark.needs("unshare", "nsenter", "setpriv", "useradd")
@pytest.mark.parametrize("kind", ["link", "FIFO", "device", "directory", "dangling link"])
def test_in_the_alias_users_home(open_folder: Path, kind: str) -> None:
    """qm install by root, over what the alias user has planted, ends, says what is in its way, and follows nothing."""
    with machine_in(open_folder) as machine:
        machine.install("--postmaster", "ann")
        ground = Ground(None, open_folder)
        for name in (".qmail-root", ".qmail-root.tmp"):
            ground.plant(kind, machine.home / "alias" / name)
        done = machine.qm("install", "mail.test.example", "--postmaster", "bea")
        ground.check()
        assert done.returncode in (0, 111), done.stdout
        if done.returncode:
            assert f"{machine.home}/alias/.qmail-root" in done.stdout
        assert machine.qm("check-install").returncode == 1 or not done.returncode


# Every place of the table that is below a directory of another than root, and which test here plants there.
COVERED: Final[dict[str, Callable[..., None]]] = {
    "alias/.qmail*": test_in_the_place_of_a_dot_qmail_file,
    "alias/*.cdb": test_in_the_place_of_a_database_of_aliases,
    "log/*": test_in_the_place_of_the_log,
    "queue/new/*": test_in_the_queue,
    "queue/cur/*": test_in_the_queue,
    "queue/state/*": test_in_the_place_of_a_state_file,
    "queue/tmp/*": test_litter,
    "queue/bad/*": test_litter,
    "queue/held/*": test_in_the_place_of_a_held_message,
    "queue/import/*": test_in_the_place_of_an_imported_message,
    "sts/*": test_litter,
    **dict.fromkeys(QUEUES_OWN, test_in_the_place_of_what_the_queue_stands_on),
}


def test_no_place_is_forgotten() -> None:
    """Where the table of the home lets another than root write, a test above plants each kind of thing."""
    loose = [place.path for place in layout.PLACES if place.kind is Kind.FOLDER and place.owners[0] != "root"]
    below = {place.path for place in layout.PLACES if os.path.dirname(place.path) in loose}
    assert below == COVERED.keys()
    assert {name for name in loose if not any(os.path.dirname(path) == name for path in below)} == set()
