"""qm-local, the command and lspawn's workers, as real programs (qmail.md section 13)."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from qm.disk import maildir
from qm.unix.queueclient import QueueClient
from qm.wire.envelope import Envelope, Recipient
from tests.harness.suite import BIN, Suite

TEXT = b"Received: id x\nSubject: hello\n\nbody\n"
HEAD = b"Return-Path: <ann@b.example>\nDelivered-To: joe@x.example\n"
DID = b"did 1+0+0\n"
Local = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "joe"
    home.mkdir(mode=0o700)
    maildir.make(os.fsencode(home / "Maildir"))
    return home


@pytest.fixture
def local(home: Path, tmp_path: Path) -> Local:
    """Run qm-local with a message on its descriptor 0."""

    def run(
        *options: str,
        text: bytes = TEXT,
        ext: str = "",
        default: str = "./Maildir/",
        env: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "message").write_bytes(text)
        name = f"joe-{ext}" if ext else "joe"
        words = ["joe", str(home), name, "-" if ext else "", ext, "x.example", "ann@b.example", default]
        with (tmp_path / "message").open("rb") as message:
            message.seek(0, os.SEEK_END)
            env = {"QMHOME": str(tmp_path), **(env or {})}
            return _run([*options, *words], stdin=message.fileno(), env=env, before=before)

    return run


def _run(
    words: list[str], *, stdin: int, env: dict[str, str] | None = None, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    command = [*before, "/usr/bin/python3", "-bb", "-IS", str(BIN / "qm-local"), *words]
    return subprocess.run(
        command, stdin=stdin, env={"PATH": "/usr/bin:/bin", **(env or {})}, capture_output=True, timeout=60, check=False
    )


def _mail(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(home.glob("Maildir/new/*"))]


def test_delivery(home: Path, local: Local) -> None:
    """The message is delivered from its beginning, wherever the descriptor stood, and the report is on descriptor 1."""
    done = local()
    assert (done.returncode, done.stdout, done.stderr) == (0, DID, b"")
    assert _mail(home) == [HEAD + TEXT]
    assert local("--").stdout == DID
    assert len(_mail(home)) == 2


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("line", "looked"), [("./Maildir/", False), ("./Mailbox", False), ("|exit 0", True), ("&bob@b.example", True)]
)
def test_when_the_owner_is_looked_for(home: Path, tmp_path: Path, local: Local, line: str, looked: bool) -> None:
    """Only a program and a forward need NEWSENDER, so only for them is .qmail-list-owner looked at."""
    (home / ".qmail-list").write_text(line)
    (home / ".qmail-list").chmod(0o600)
    done = local(ext="list", before=["strace", "-f", "-o", str(tmp_path / "calls"), "-e", "trace=%file"])
    assert done.returncode == (111 if line[0] == "&" else 0)  # there is no queue
    calls = (tmp_path / "calls").read_text()
    assert '".qmail-list"' in calls
    assert ('".qmail-list-owner"' in calls) == looked


def test_named_by_the_environment(home: Path, local: Local) -> None:
    """With QMID and QMINDEX a repetition is seen; another recipient's delivery is none."""
    name = "1hntvgghz6000000zz"
    for index, count in (("0", 1), ("0", 1), ("1", 2), ("", 2), ("x", 2)):
        assert local(env={"QMID": name, "QMINDEX": index}).returncode == 0
        assert len(_mail(home)) == count
    assert len(list(home.glob(f"Maildir/new/*.Q{name}R[01]L1.*"))) == 2
    assert local(env={"QMID": "../../x", "QMINDEX": "0"}).returncode == 0
    assert len(_mail(home)) == 3


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-n"],
        ["joe", "/tmp", "joe", "", "", "x", ""],
        ["joe", "/tmp", "joe", "", "", "x", "", "./M/", "more"],
        ["joe", "tmp", "joe", "", "", "x", "", "./M/"],
        ["-x", "joe", "/tmp", "joe", "", "", "x", "", "./M/"],
    ],
)
def test_usage(words: list[str]) -> None:
    """A wrong command line is a permanent failure, and says how to do it."""
    done = _run(words, stdin=subprocess.DEVNULL)
    assert done.returncode == 100
    assert b"usage: qm-local [-nN] user homedir" in done.stderr


def test_no_home() -> None:
    """A home that cannot be entered defers."""
    done = _run(["joe", "/nonexistent", "joe", "", "", "x", "", "./Maildir/"], stdin=subprocess.DEVNULL)
    assert done.returncode == 111
    assert b"/nonexistent" in done.stderr


def test_describe(home: Path, local: Local) -> None:
    """-n says what would be done, a line for each instruction, and does nothing; -N takes it back."""
    (home / ".qmail").write_bytes(b"# x\n./Maildir/\n/var/mail/joe\n|exit 99\n&bob@y\n cid@y\n+list\n")
    done = local("-n")
    wanted = b"maildir ./Maildir/\nmbox /var/mail/joe\nprogram exit 99\nforward bob@y\nforward  cid@y\n"
    assert (done.returncode, done.stdout) == (0, wanted)
    assert _mail(home) == []
    (home / ".qmail").unlink()
    assert local("-nN").stdout == DID
    assert local("-N", "-n").stdout == b"maildir ./Maildir/\n"


def test_describe_looks_no_further(home: Path, local: Local) -> None:
    """-n reads no message and only warns of a sticky home; what defers a delivery it says, too."""
    home.chmod(0o1700)
    looping = b"Delivered-To: joe@x.example\n\n"
    done = local("-n", text=looping)
    assert (done.returncode, done.stdout) == (0, b"maildir ./Maildir/\n")
    assert b"sticky" in done.stderr
    assert local("-n", ext="x").returncode == 100
    home.chmod(0o702)
    assert local("-n").returncode == 111


def test_failures_are_said_on_2(home: Path, local: Local) -> None:
    """A failure's exit code tells its kind, and descriptor 2 the reason."""
    for text, code, word in ((b"|echo no; exit 100\n", 100, b"no\n"), (b"|echo later; exit 1\n", 111, b"later\n")):
        (home / ".qmail").write_bytes(text)
        done = local()
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", word)
    (home / ".qmail").unlink()
    for done, code, word in (
        (local(ext="x"), 100, b"#5.1.1"),
        (local(text=b"Delivered-To: joe@x.example\n\n"), 100, b"#5.4.6"),
        (local(default="./gone/"), 111, b"#4.2.1"),
    ):
        assert (done.returncode, done.stdout) == (code, b"")
        assert word in done.stderr


def test_a_message_from_a_pipe(home: Path) -> None:
    """A message that cannot be read twice defers."""
    reader, writer = os.pipe()
    os.write(writer, TEXT)
    os.close(writer)
    done = _run(["joe", str(home), "joe", "", "", "x", "", "./Maildir/"], stdin=reader)
    os.close(reader)
    assert done.returncode == 111
    assert _mail(home) == []


def test_a_program_sees_the_world(home: Path, local: Local) -> None:
    """A program runs in the home, with a private umask, the caller's environment and our additions to it."""
    (home / ".qmail").write_bytes(b"|pwd; umask; echo $COLOUR $RECIPIENT $SENDER; cat\n")
    done = local(env={"COLOUR": "blue"})
    wanted = os.fsencode(home) + b"\n0077\nblue joe@x.example ann@b.example\n" + TEXT + b"did 0+0+1\n"
    assert (done.returncode, done.stdout) == (0, wanted)


def test_signals_of_the_caller(home: Path, local: Local) -> None:
    """A caller that ignores or blocks signals keeps neither a program's end nor its message from us."""
    (home / ".qmail").write_bytes(b"|exit 99\n")
    ignored = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGCHLD})
    try:
        reader, writer = os.pipe()
        with (home / "message").open("w+b") as message:
            words = ["joe", str(home), "joe", "", "", "x", "", "./Maildir/"]
            moves = [(os.POSIX_SPAWN_DUP2, message.fileno(), 0), (os.POSIX_SPAWN_DUP2, writer, 1)]
            os.posix_spawn(BIN / "qm-local", ["qm-local", *words], os.environ, file_actions=moves)
        os.close(writer)
        with open(reader, "rb") as report:
            assert report.read() == b"did 0+0+1\n"
    finally:
        signal.signal(signal.SIGCHLD, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_50_mib(home: Path, local: Local) -> None:
    """A message of 50 MiB is delivered without being held in memory."""
    (home / ".qmail").write_bytes(b"./Maildir/\n./Mailbox\n|cat >copy\n|grep VmHWM /proc/$PPID/status\n")
    text = TEXT + b"0123456789abcde\n" * (50 * 65536)
    done = local(text=text)
    assert done.returncode == 0, done.stderr
    peak_kib = int(re.search(rb"VmHWM:\s+(\d+) kB", done.stdout)[1])  # type: ignore[index]
    assert peak_kib < 40_000
    assert _mail(home) == [HEAD + text]
    assert (home / "Mailbox").read_bytes().endswith(HEAD + text + b"\n")
    assert (home / "copy").read_bytes() == text


@pytest.fixture
def quiet(make_suite: Callable[[], Suite]) -> Iterator[Suite]:
    """The suite without its network services, and mailboxes ann and bob."""
    suite = make_suite()
    for name in ("smtp", "pop3"):
        suite.service(name, None)
    suite.add_user("bob", "secret")
    yield suite.start()


def _send(suite: Suite, recipient: str, sender: bytes = b"", text: bytes = b"Subject: x\n\nbody\n") -> bytes:
    with QueueClient(str(suite.home / "queue" / "socket")) as queue:
        submission = queue.begin()
        submission.write(text)
        return submission.commit(Envelope(sender, (Recipient(recipient.encode()),))).name


def test_a_worker_forwards(quiet: Suite) -> None:
    """A worker that runs as the user, below a directory that it cannot search, reaches the queue."""
    quiet.dot_qmail("ann", "&bob@test.example\n./Maildir/\n|echo $USER >seen\n")
    name = _send(quiet, "ann@test.example")
    (copy,) = quiet.wait_for_mail(name="bob")
    assert copy.startswith(b"Return-Path: <>\nDelivered-To: bob@test.example\nReceived: ")
    assert b"\nDelivered-To: ann@test.example\n" in copy
    assert name in copy
    assert len(quiet.wait_for_mail()) == 1
    assert (quiet.home / "home" / "ann" / "seen").read_text() == "ann\n"
    quiet.wait_for_log(r"delivery [0-9]+: success: did_1\+1\+1/id_[0-9a-z]{18}/")
    quiet.wait_until_idle()


def test_looping_forwards_end(quiet: Suite) -> None:
    """Two mailboxes that forward to each other end it after one round."""
    quiet.dot_qmail("ann", "&bob@test.example\n")
    quiet.dot_qmail("bob", "&ann@test.example\n")
    _send(quiet, "ann@test.example")
    quiet.wait_for_log(r"failure: This_message_is_looping")
    assert quiet.mail() == quiet.mail("bob") == []


def test_a_message_too_large_to_keep_in_memory(quiet: Suite) -> None:
    """A program of another user reads a large message, which is the queue's file and not the user's to open."""
    quiet.dot_qmail("ann", "|head -c 10 >/dev/null\n|wc -c >size\n./Maildir/\n")
    _send(quiet, "ann@test.example", text=b"Subject: x\n\n" + b"line\n" * 200_000)
    (mail,) = quiet.wait_for_mail()
    head = b"Return-Path: <>\nDelivered-To: ann@test.example\n"
    assert mail.startswith(head)
    assert int((quiet.home / "home" / "ann" / "size").read_text()) == len(mail) - len(head)
