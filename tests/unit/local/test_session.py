"""Whole deliveries through the workers' door: what ends up where, in which order, and what is said (qmail.md 13)."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qm.disk import maildir
from qm.local import main
from qm.local.policy import REPORT_MAX
from qm.wire import envelope, queueid
from qm.wire.envelope import Envelope, Recipient
from qm.wire.record import Malformed, pack
from tests.harness.waiting import wait_for

TEXT = b"Received: id x\nSubject: hello\n\nbody\n"
ID = queueid.make(1_790_000_000_000_000_000, 7)
Deliver = Callable[..., bytes]


class _Queued(NamedTuple):
    message: bytes
    envelope: Envelope


class _Queue(threading.Thread):
    """A queue service that keeps what it gets, and answers with *code*."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.code = 0
        self.got: list[_Queued] = []
        path.parent.mkdir()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fsencode(path))
        self._listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        """docs/INTERNALS.md 1.3, spelt out."""
        message = records = b""
        while datagram := connection.recv(131072):
            letter, rest = datagram[:1], datagram[1:]
            if letter == b"S":
                begin, length = struct.unpack_from("!II", rest)
                records, message = rest[8 + begin :][:length], rest[8 + begin + length :]
            elif letter == b"M":
                message += rest
            elif letter in b"eE":
                records += rest
            if letter in b"SE":
                self.got.append(_Queued(message, envelope.decode(records)))
                message = records = b""
            if letter in b"BSE":
                connection.send(pack(b"%d" % (0 if letter == b"B" else self.code), ID, b""))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, below qm's and with a Maildir; the current directory."""
    home = tmp_path / "users" / "joe"
    home.mkdir(parents=True, mode=0o700)
    maildir.make(os.fsencode(home / "Maildir"))
    monkeypatch.chdir(home)
    monkeypatch.setenv("QMHOME", str(tmp_path))
    return home


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[_Queue]:
    queue = _Queue(tmp_path / "queue" / "socket")
    queue.start()
    yield queue
    queue.close()


def _state() -> tuple[object, ...]:
    mask = os.umask(0o077)
    os.umask(mask)
    return os.getcwdb(), mask, dict(os.environb), len(os.listdir("/proc/self/fd"))


@pytest.fixture
def deliver(home: Path) -> Deliver:
    def deliver(
        text: bytes = TEXT,
        *,
        ext: bytes = b"",
        dash: bytes | None = None,
        sender: bytes = b"ann@b.example",
        default: bytes = b"./Maildir/",
        flags: bytes = b"",
    ) -> bytes:
        local = b"joe-" + ext if ext else b"joe"
        dash = (b"-" if ext else b"") if dash is None else dash
        record = pack(b"joe", os.fsencode(home), local, dash, ext, b"x.example", sender, default, ID, b"3", flags)
        fd = os.memfd_create("message")
        os.write(fd, text)  # its offset is at the end now
        before = _state()
        try:
            report = main.work(record, [fd])
        finally:
            wait_for(lambda: _state() == before, "nothing is left of the delivery")  # the queue's thread closes late
            os.close(fd)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        assert b"\0" not in report
        return report

    return deliver


def _write(home: Path, text: bytes, name: str = ".qmail", mode: int = 0o600) -> None:
    (home / name).write_bytes(text)
    (home / name).chmod(mode)


def _mail(home: Path, folder: str = "Maildir") -> list[bytes]:
    return [path.read_bytes() for path in sorted(home.glob(f"{folder}/new/*"))]


HEAD = b"Return-Path: <ann@b.example>\nDelivered-To: joe@x.example\n"


def test_default_delivery(home: Path, deliver: Deliver) -> None:
    """Without a .qmail file the default delivery counts; the name is that of message, recipient and line."""
    assert deliver() == b"Kdid 1+0+0\n"
    assert _mail(home) == [HEAD + TEXT]
    (path,) = home.glob("Maildir/new/*")
    assert path.name.startswith(f"1790000000.Q{ID.decode()}R3L1.")


def test_default_delivery_has_lines(home: Path, deliver: Deliver) -> None:
    """The default delivery may be as long as a .qmail file."""
    assert deliver(default=b"#x\n./Maildir/\n|cat >seen") == b"Kdid 1+0+1\n"
    assert (home / "seen").read_bytes() == TEXT


def test_every_kind_of_line(home: Path, deliver: Deliver, queue: _Queue) -> None:
    """Files and programs in order, forwards last in one message, and a count of each."""
    _write(home, b"&bob@y\n./Maildir/\n./Mailbox\n|cat >seen\ncid@y\n|echo $LOCAL\n")
    assert deliver() == b"Kjoe\ndid 2+2+2\nid " + ID + b"\n"
    assert _mail(home) == [HEAD + TEXT]
    box = (home / "Mailbox").read_bytes()
    assert box.startswith(b"From ann@b.example ")
    assert box.partition(b"\n")[2] == HEAD + TEXT + b"\n"
    assert (home / "seen").read_bytes() == TEXT
    recipients = (Recipient(b"bob@y"), Recipient(b"cid@y"))
    assert queue.got == [_Queued(b"Delivered-To: joe@x.example\n" + TEXT, Envelope(b"ann@b.example", recipients))]


def test_two_lines_to_one_maildir(home: Path, deliver: Deliver) -> None:
    """Two lines that name one Maildir put two messages there, also at the next try no more."""
    _write(home, b"./Maildir/\n./Maildir/\n")
    for flags in (b"", b"", b"d"):
        assert deliver(flags=flags) == b"Kdid 2+0+0\n"
        assert _mail(home) == [HEAD + TEXT] * 2


def test_possible_duplicate(home: Path, deliver: Deliver) -> None:
    """A repetition that the queue warns of delivers nothing twice, to a Maildir that was read or to an mbox."""
    _write(home, b"./Maildir/\n./Mailbox\n")
    deliver()
    for path in home.glob("Maildir/new/*"):
        path.rename(home / "Maildir" / "cur" / f"{path.name}:2,S")
    box = (home / "Mailbox").read_bytes()
    assert deliver(flags=b"d8") == b"Kdid 2+0+0\n"
    assert _mail(home) == []
    assert (home / "Mailbox").read_bytes() == box


def test_no_mailbox(deliver: Deliver) -> None:
    """An extension without a file is no mailbox, for ever."""
    report = deliver(ext=b"list")
    assert report.startswith(b"D")
    assert b"(#5.1.1)" in report


def test_extension(home: Path, deliver: Deliver) -> None:
    """A default file serves an extension, and says what it stood for."""
    _write(home, b"|echo $DEFAULT/$EXT/$EXT2\n", ".qmail-list-default")
    assert deliver(ext=b"List-Sub-X") == b"KSub-X/List-Sub-X/Sub-X\ndid 0+0+1\n"


def test_a_stale_default_is_not_passed_on(home: Path, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """DEFAULT is not set where no default file has matched."""
    monkeypatch.setenv("DEFAULT", "stale")
    _write(home, b"|echo ${DEFAULT-unset}\n", ".qmail-list")
    assert deliver(ext=b"list") == b"Kunset\ndid 0+0+1\n"


def test_empty_file_is_the_default_delivery(home: Path, deliver: Deliver) -> None:
    """An empty file stands for the default delivery, whatever its x bit says."""
    _write(home, b"", ".qmail-x", 0o700)
    assert deliver(ext=b"x") == b"Kdid 1+0+0\n"
    assert len(_mail(home)) == 1


def test_comments_throw_away(home: Path, deliver: Deliver) -> None:
    """A file of comments delivers nowhere, and that is a success."""
    _write(home, b"# nobody\n")
    assert deliver() == b"Kdid 0+0+0\n"
    assert _mail(home) == []


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        (b"\n./Maildir/\n", 0o600, b"4.2.1"),
        (b"./Maildir/\n", 0o602, b"4.7.0"),
        (b"./Maildir/\n", 0o700, b"4.7.0"),
        (b"./Maildir/\n+list\n|true\n", 0o600, b"4.7.0"),
        (b"./Maildir/\n./gone/\n", 0o600, b"4.2.1"),
        (b"./gone/Mailbox\n", 0o600, b"4.2.1"),
        (b"./Maildir\n", 0o600, b"4.2.1"),
    ],
)
def test_bad_files_defer(home: Path, deliver: Deliver, text: bytes, mode: int, code: bytes) -> None:
    """A .qmail file that cannot be obeyed defers the message, and the report says why, without a path."""
    _write(home, text, mode=mode)
    report = deliver()
    assert report.startswith(b"Z")
    assert b"(#%b)\n" % code in report
    assert os.fsencode(home) not in report


def test_a_bad_line_delivers_nothing(home: Path, deliver: Deliver) -> None:
    """A line that cannot be obeyed is seen before the lines above it have any effect."""
    _write(home, b"./Maildir/\n+list\n./Mailbox\n")
    assert deliver().startswith(b"Z")
    assert _mail(home) == []


def test_loop(home: Path, deliver: Deliver) -> None:
    """A message that was here before bounces, and nothing is delivered."""
    report = deliver(b"Received: x\nDelivered-To: joe@x.example\n" + TEXT)
    assert report.startswith(b"D")
    assert b"(#5.4.6)" in report
    assert _mail(home) == []


def test_loop_far_down_a_large_header(home: Path, deliver: Deliver) -> None:
    """However large its header is."""
    assert deliver(b"X-A: b\n" * 50_000 + b"Delivered-To: joe@x.example\n\n").startswith(b"D")


@pytest.mark.parametrize(("mode", "code"), [(0o702, b"4.7.0"), (0o1700, b"4.2.1")])
def test_home_modes(home: Path, deliver: Deliver, mode: int, code: bytes) -> None:
    """A home that everybody may write, or that is being edited, defers."""
    home.chmod(mode)
    report = deliver()
    assert report.startswith(b"Z")
    assert b"(#%b)\n" % code in report
    assert _mail(home) == []


def test_home_gone(home: Path, deliver: Deliver) -> None:
    """So does one that is not there."""
    home.rename(home.parent / "elsewhere")
    assert deliver().startswith(b"Z")
    assert _mail(home.parent / "elsewhere") == []


def test_home_replaced(home: Path, deliver: Deliver) -> None:
    """A worker that sits in an old home delivers to the new one of that name."""
    home.rename(home.parent / "old")
    home.mkdir(mode=0o700)
    maildir.make(os.fsencode(home / "Maildir"))
    record = pack(b"joe", os.fsencode(home), b"joe", b"", b"", b"x", b"", b"./Maildir/", ID, b"0", b"")
    fd = os.memfd_create("message")
    assert main.work(record, [fd]).startswith(b"K")
    os.close(fd)
    assert len(_mail(home)) == 1
    assert _mail(home.parent / "old") == []


@pytest.mark.parametrize(("code", "letter"), [(100, b"D"), (64, b"D"), (111, b"Z"), (1, b"Z"), (127, b"Z")])
def test_a_failing_program_stops_everything(
    home: Path, deliver: Deliver, queue: _Queue, code: int, letter: bytes
) -> None:
    """After a failing program no line counts, nor any forward above it; its words are the report."""
    _write(home, b"&bob@y\n|echo sorry; exit %d\n./Maildir/\n" % code)
    assert deliver() == letter + b"sorry\n"
    assert _mail(home) == []
    assert queue.got == []


def test_a_program_without_words(home: Path, deliver: Deliver) -> None:
    """A failing program that says nothing still leaves a reason."""
    _write(home, b"|exit 100\n")
    assert deliver() == b"DA program ended with exit code 100 and said nothing. (#5.3.0)\n"
    _write(home, b"|echo x; kill -9 $$\n")
    assert deliver() == b"Zx\nA program was killed by signal 9. (#4.3.0)\n"


def test_exit_99(home: Path, deliver: Deliver, queue: _Queue) -> None:
    """Exit 99 ends the file with success; the forwards above it go."""
    _write(home, b"&bob@y\n|exit 99\n./Maildir/\n&cid@y\n")
    assert deliver() == b"Kdid 0+1+1\nid " + ID + b"\n"
    assert _mail(home) == []
    assert [queued.envelope.recipients for queued in queue.got] == [(Recipient(b"bob@y"),)]


def test_report_is_bounded(home: Path, deliver: Deliver) -> None:
    """Programs that talk and talk leave a report of bounded size, with its last line."""
    _write(home, b"|yes | head -c 2499\n|yes\0n | head -c 100000\n|yes | head -c 100000\n".replace(b"\0", b"\\"))
    report = deliver()
    assert len(report) <= REPORT_MAX + 1
    assert report.endswith(b"did 0+0+3\n")


def test_output_ends_at_nul(home: Path, deliver: Deliver) -> None:
    """A program's output counts up to its first NUL, and gets the line end that it lacks."""
    _write(home, b"|printf 'a\\0b'\n|printf c\n")
    assert deliver() == b"Ka\nc\ndid 0+0+2\n"


def test_programs_read_from_the_beginning(home: Path, deliver: Deliver) -> None:
    """Each program reads the message from its beginning, without the fields that files get."""
    text = TEXT + b"x" * 300_000
    _write(home, b"|cat >one\n|head -c 3 >two\n|cat >three\n./Maildir/\n")
    assert deliver(text) == b"Kdid 1+0+3\n"
    assert (home / "one").read_bytes() == (home / "three").read_bytes() == text
    assert (home / "two").read_bytes() == text[:3]
    assert _mail(home) == [HEAD + text]


def test_a_program_cannot_change_the_message(home: Path, deliver: Deliver) -> None:
    """What a program has on descriptor 0 it can read, and not write."""
    _write(home, b"|echo x >&0\n./Maildir/\n")
    assert deliver().startswith(b"Z")
    assert _mail(home) == []


def test_list_owner(home: Path, deliver: Deliver, queue: _Queue) -> None:
    """Forwards of a list come from its owner, and programs are told."""
    _write(home, b"|echo $NEWSENDER\n&bob@y\n", ".qmail-list")
    _write(home, b"./Mailbox\n", ".qmail-list-owner")
    assert deliver(ext=b"list").startswith(b"Kjoe-list-owner@x.example\n")
    _write(home, b"./Mailbox\n", ".qmail-list-owner-default")
    assert deliver(ext=b"list").startswith(b"Kjoe-list-owner-@x.example-@[]\n")
    assert deliver(ext=b"list", sender=b"").startswith(b"K\n")
    senders = [queued.envelope.sender for queued in queue.got]
    assert senders == [b"joe-list-owner@x.example", b"joe-list-owner-@x.example-@[]", b""]


def test_forward_keeps_what_the_message_is(home: Path, deliver: Deliver, queue: _Queue) -> None:
    """8BITMIME and SMTPUTF8 of a message hold for what is forwarded."""
    _write(home, b"&bob@y\n")
    deliver(flags=b"8U")
    (queued,) = queue.got
    assert (queued.envelope.eight_bit, queued.envelope.smtputf8) == (True, True)


def test_a_large_forward(home: Path, deliver: Deliver, queue: _Queue) -> None:
    """A message of many datagrams is forwarded whole."""
    _write(home, b"&bob@y\n")
    text = TEXT + os.urandom(1_000_000)
    assert deliver(text).startswith(b"Kdid 0+1+0\nid ")
    assert [queued.message for queued in queue.got] == [b"Delivered-To: joe@x.example\n" + text]


@pytest.mark.parametrize(("code", "letter"), [(53, b"Z"), (31, b"D"), (11, b"D"), (81, b"Z")])
def test_the_queue_refuses(home: Path, deliver: Deliver, queue: _Queue, code: int, letter: bytes) -> None:
    """What the queue says of a forward is said of the delivery."""
    queue.code = code
    _write(home, b"&bob@y\n")
    assert deliver()[:1] == letter


def test_no_queue(home: Path, deliver: Deliver) -> None:
    """Without a queue service a forward waits, and the Maildir line above it is not repeated."""
    _write(home, b"./Maildir/\n&bob@y\n")
    for _ in range(2):
        assert deliver().startswith(b"Z")
        assert len(_mail(home)) == 1


def test_program_time_limit(home: Path, deliver: Deliver, tmp_path: Path) -> None:
    """control/timeoutprogram limits how long a program runs."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "timeoutprogram").write_text("1\n")
    _write(home, b"|exec sleep 60\n")
    assert deliver() == b"ZA program did not end in 1 seconds. (#4.3.0)\n"


def test_broken_time_limit(home: Path, deliver: Deliver, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A broken control/timeoutprogram is named in the log, and the default holds."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "timeoutprogram").write_text("soon\n")
    _write(home, b"|true\n")
    assert deliver() == b"Kdid 0+0+1\n"
    assert "timeoutprogram:1: not a number" in capfd.readouterr().err


def test_details_go_to_the_log(home: Path, deliver: Deliver, capfd: pytest.CaptureFixture[str]) -> None:
    """The administrator reads which file it was; the sender does not."""
    _write(home, b"./gone/\n")
    report = deliver()
    assert b"gone" not in report
    line = capfd.readouterr().err
    assert line.startswith(f"qm-local: warning: {ID.decode()} to joe: ")
    assert "./gone: No such file" in line


@pytest.mark.parametrize("record", [b"", b"x\0", pack(*[b"x"] * 11), pack(*[b"x"] * 8, ID, b"-1", b"")])
def test_malformed_records(record: bytes) -> None:
    """A record that lspawn would not write is an exception, so that its worker ends and the delivery is deferred."""
    with pytest.raises(Malformed):
        main.work(record, [0])
