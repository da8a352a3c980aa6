"""maildir2mbox, the mail readers that run it first, and maildirwatch, as real programs (qmail.md section 18)."""

import fcntl
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.queueservice import PYTHON
from tests.harness.suite import BIN
from tests.harness.waiting import wait_for

OLD = b"From old\n\nold\n\n"


class Mailbox:
    """A user's Maildir and mbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maildir = folder / "Maildir"
        self.mail = folder / "Mailbox"
        for name in ("", "new", "cur", "tmp"):
            (self.maildir / name).mkdir()
        self.env = {
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "MAIL": str(self.mail),
            "MAILTMP": str(folder / "Mailbox.tmp"),
            "MAILDIR": str(self.maildir),
            "TZ": "XYZ-9",
        }

    def add(self, name: str, text: bytes, time_s: int = 1795496436) -> Path:
        path = self.maildir / name
        path.write_bytes(text)
        os.utime(path, (time_s, time_s))
        return path

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PYTHON, BIN / argv[0], *argv[1:]],
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            timeout=60,
        )

    def left(self) -> list[str]:
        return sorted(path.name for folder in ("new", "cur") for path in (self.maildir / folder).iterdir())


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


def test_messages_move(box: Mailbox) -> None:
    """Messages of new/ and cur/ go to the end of the mbox by their files' times, and leave the Maildir."""
    box.mail.write_bytes(OLD)
    box.mail.chmod(0o640)
    box.add("cur/1.b:2,S", b"Return-Path: <joe user@x>\nSubject: 2\n\nFrom me\n>From you\nend", 1795496437)
    box.add("new/9.a", b"Return-Path: <>\nSubject: 1\n\nbody\n", 1795496436)
    box.add("new/0.c", b"Subject: 3\n\n", 1795496438)
    done = box.run("maildir2mbox")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert box.mail.read_bytes() == OLD + (
        b"From MAILER-DAEMON Tue Nov 24 05:00:36 2026\nReturn-Path: <>\nSubject: 1\n\nbody\n\n"
        b"From joe-user@x Tue Nov 24 05:00:37 2026\nReturn-Path: <joe user@x>\nSubject: 2\n\n"
        b">From me\n>>From you\nend\n\n"
        b"From XXX Tue Nov 24 05:00:38 2026\nSubject: 3\n\n\n"
    )
    assert box.left() == []
    assert stat.S_IMODE(box.mail.stat().st_mode) == 0o640
    assert {path.name for path in box.folder.iterdir()} == {"Maildir", "Mailbox"}


def test_nothing_to_move(box: Mailbox) -> None:
    """Without messages nothing is touched; old files of tmp/ go."""
    old = box.add("tmp/old", b"x", int(time.time()) - 40 * 3600)
    young = box.add("tmp/young", b"x", int(time.time()))
    assert box.run("maildir2mbox").returncode == 0
    assert not box.mail.exists()
    assert (old.exists(), young.exists()) == (False, True)


def test_the_first_mbox(box: Mailbox) -> None:
    """An mbox that is not there is made, for its user only."""
    box.add("new/1.a", b"A: b\n\n")
    assert box.run("maildir2mbox").returncode == 0
    assert stat.S_IMODE(box.mail.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        (b"From x\n\nno end", b"From x\n\nno end\n\n"),
        (b"From x\n\nno blank\n", b"From x\n\nno blank\n\n"),
        (b"x", b"x\n\n"),
        (b"", b""),
    ],
)
def test_an_unterminated_line_is_kept(box: Mailbox, old: bytes, kept: bytes) -> None:
    """The mbox's last line is kept, and gets its end (qmail lost it: 27.12)."""
    box.mail.write_bytes(old)
    box.add("new/1.a", b"A: b\n\n")
    assert box.run("maildir2mbox").returncode == 0
    assert box.mail.read_bytes() == kept + b"From XXX Tue Nov 24 05:00:36 2026\nA: b\n\n\n"


def test_a_link_to_the_mbox(box: Mailbox) -> None:
    """If MAIL is a symbolic link, what it leads to is the mbox, and it stays a link."""
    real = box.folder / "real"
    real.write_bytes(OLD)
    box.mail.symlink_to("real")
    box.add("new/1.a", b"A: b\n\n")
    assert box.run("maildir2mbox").returncode == 0
    assert box.mail.is_symlink()
    assert real.read_bytes().startswith(OLD + b"From XXX")


def test_large_messages(box: Mailbox) -> None:
    """Nothing of a large message or a large mbox is lost."""
    old = b"From x\n" + b"o" * 3_000_000 + b"\n\n"
    text = b"From y\n" * 500_000
    box.mail.write_bytes(old)
    box.add("new/1.a", text)
    assert box.run("maildir2mbox").returncode == 0
    assert box.mail.read_bytes() == old + b"From XXX Tue Nov 24 05:00:36 2026\n" + b">From y\n" * 500_000 + b"\n"


def test_it_waits_for_the_lock(box: Mailbox) -> None:
    """While another program has the mbox locked nothing happens; what that adds is kept."""
    box.mail.write_bytes(OLD)
    box.add("new/1.a", b"A: b\n\n")
    with box.mail.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([*PYTHON, BIN / "maildir2mbox"], env=box.env, cwd=box.folder) as process:
            wait_for(lambda: _waits_for_lock(process.pid), "waits for the lock")
            file.write(b"From more\n\nmore\n\n")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_UN)
            assert process.wait(30) == 0
    assert box.mail.read_bytes().startswith(OLD + b"From more\n\nmore\n\nFrom XXX")


def _waits_for_lock(pid: int) -> bool:
    return any(f" {pid} " in line and "->" in line for line in Path("/proc/locks").read_text().splitlines())


def test_an_mbox_that_was_replaced_meanwhile(box: Mailbox) -> None:
    """Whoever waited for a file that is the mbox no more takes the one that is."""
    box.mail.write_bytes(b"gone\n\n")
    box.add("new/1.a", b"A: b\n\n")
    with box.mail.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([*PYTHON, BIN / "maildir2mbox"], env=box.env, cwd=box.folder) as process:
            wait_for(lambda: _waits_for_lock(process.pid), "waits for the lock")
            (box.folder / "new").write_bytes(OLD)
            (box.folder / "new").rename(box.mail)
            fcntl.flock(file, fcntl.LOCK_UN)
            assert process.wait(30) == 0
    assert box.mail.read_bytes().startswith(OLD + b"From XXX")


@pytest.mark.parametrize("missing", ["MAIL", "MAILTMP", "MAILDIR"])
def test_environment(box: Mailbox, missing: str) -> None:
    """Each of its variables is needed."""
    done = box.run("maildir2mbox", **{missing: ""})
    assert (done.returncode, missing.encode() in done.stderr) == (111, True)


def test_trouble(box: Mailbox) -> None:
    """A Maildir that is none, one name for both files, another file system: 111, and nothing is changed."""
    box.mail.write_bytes(OLD)
    box.add("new/1.a", b"A: b\n\n")
    for env in (
        {"MAILDIR": "/not/there"},
        {"MAILTMP": box.env["MAIL"]},
        {"MAILTMP": "/dev/shm/qm-test-mailtmp"},
        {"MAIL": "/dev/null"},
    ):
        done = box.run("maildir2mbox", **env)
        assert done.returncode == 111
        assert done.stderr.count(b"\n") == 1
        assert box.mail.read_bytes() == OLD
        assert box.left() == ["1.a"]
    assert not Path("/dev/shm/qm-test-mailtmp").exists()


@pytest.mark.parametrize(("name", "reader"), [("qail", "Mail"), ("elq", "elm"), ("pinq", "pine")])
def test_readers(box: Mailbox, name: str, reader: str) -> None:
    """The mail is brought first; then the reader runs with the arguments, where the user is."""
    (box.folder / "bin").mkdir()
    program = box.folder / "bin" / reader
    program.write_text('#!/bin/sh\necho "$PWD" "$@"; cat "$MAIL"; exit 7\n')
    program.chmod(0o755)
    box.add("new/1.a", b"A: b\n\n")
    done = box.run(name, "-f", "x y")
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout.startswith(os.fsencode(box.folder) + b" -f x y\nFrom XXX")
    assert box.run(name, MAILDIR="/not/there").returncode == 111


@pytest.fixture
def watching(box: Mailbox) -> Iterator[Callable[[], bytes]]:
    """maildirwatch, and what it has shown so far."""
    shown = box.folder / "shown"
    with shown.open("wb") as file:
        process = subprocess.Popen([*PYTHON, BIN / "maildirwatch"], env=box.env, cwd=box.folder, stdout=file)
    yield shown.read_bytes
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_maildirwatch(box: Mailbox, request: pytest.FixtureRequest) -> None:
    """It shows sender, recipient, From, Subject and body of what is new, and no escape of a stranger's."""
    text = b"Return-Path: <joe@x>\nDelivered-To: ann@a\nFrom: Joe\x1b[2J\nSubject: hi\n\nbody\n"
    box.add("new/1.a", text)
    box.add("cur/2.b:2,", b"Subject: seen\n\n")
    watching = request.getfixturevalue("watching")
    wait_for(lambda: b"body" in watching(), "the message")
    lines = watching().split(b"\n")
    assert lines[0].startswith(b"\x1b[;H\x1b[;J1 new messages in ")
    assert lines[2:] == [b"FROM <joe@x> TO ann@a", b"From: Joe?[2J", b"Subject: hi / body", b""]


def test_maildirwatch_needs_a_maildir(box: Mailbox) -> None:
    """Without MAILDIR, or without a Maildir there, it ends."""
    assert box.run("maildirwatch", MAILDIR="").returncode == 111
    assert box.run("maildirwatch", MAILDIR="/not/there").returncode == 111
