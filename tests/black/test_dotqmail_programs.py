"""The programs for .qmail lines, as real programs (qmail.md section 17)."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.injection import Injection, Result
from tests.harness.queueservice import QueueService
from tests.harness.suite import Suite

MESSAGE = b"Received: x\nFrom: joe@x.example\nTo: ann@a.example\nMessage-ID: <m@x>\nSubject: hi\n\nbody\n"
DELIVERY: Mapping[str, str] = {
    "SENDER": "joe@x.example",
    "NEWSENDER": "ann-owner@a.example",
    "RECIPIENT": "ann@a.example",
    "LOCAL": "ann",
    "DTLINE": "Delivered-To: ann@a.example\n",
    "RPLINE": "Return-Path: <joe@x.example>\n",
    "UFLINE": "From joe@x.example Tue Nov 24 12:00:00 2026\n",
}


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Injection]:
    """A queue service that runs."""
    service = QueueService(tmp_path / "home").start()
    yield Injection(service)
    if service.process is not None:
        assert service.stop() == 0


def run(there: Injection, *argv: str | bytes, input: bytes = MESSAGE, env: Mapping[str, str] = DELIVERY) -> Result:
    return there.run(*argv, input=input, env=env)


# forward


def test_forward(there: Injection) -> None:
    """forward queues DTLINE and the message, from NEWSENDER, and tells the ID."""
    done = run(there, "forward", "bob@b.example", "joe user@c.example")
    assert (done.returncode, done.stdout) == (0, b"")
    assert re.fullmatch(rb"forward: id [0-9a-z]{18}\n", done.stderr)
    queued = there.only()
    assert queued.envelope.sender == b"ann-owner@a.example"
    assert queued.recipients == [b"bob@b.example", b"joe user@c.example"]
    assert queued.message == b"Delivered-To: ann@a.example\n" + MESSAGE


def test_forward_keeps_every_byte(there: Injection) -> None:
    """Nothing of the message is changed, and 8-bit bytes are told to whoever delivers."""
    text = MESSAGE + bytes(range(256)) * 1000
    assert run(there, "forward", "bob@b.example", input=text).returncode == 0
    queued = there.only()
    assert queued.message == b"Delivered-To: ann@a.example\n" + text
    assert queued.envelope.eight_bit


@pytest.mark.parametrize("argv", [("forward", "bob@b.example"), ("condredirect", "bob@b.example", "true")])
def test_what_was_asked_of_tls_goes_along(there: Injection, argv: tuple[str, ...]) -> None:
    """What QMTLS says of the message is true of what is sent on (RFC 8689 6); any other word says nothing."""
    for word in ("required", "optional", "no"):
        there.run(*argv, input=MESSAGE, env={**DELIVERY, "QMTLS": word}, seekable=True)
    asked = [(queued.envelope.requiretls, queued.envelope.tlsoptional) for queued in there.queued()]
    assert asked == [(True, False), (False, True), (False, False)]


@pytest.mark.parametrize("missing", ["NEWSENDER", "DTLINE"])
def test_forward_outside_of_qmail(there: Injection, missing: str) -> None:
    """Without NEWSENDER or DTLINE it exits 100; without an address, too."""
    env = {name: value for name, value in DELIVERY.items() if name != missing}
    done = run(there, "forward", "bob@b.example", env=env)
    assert done.returncode == 100
    assert missing.encode() in done.stderr
    assert run(there, "forward").returncode == 100
    assert there.queued() == []


def test_forward_failures(there: Injection) -> None:
    """What the queue refuses is 100, what it cannot take now 111."""
    assert run(there, "forward", "a" * 1001).returncode == 100
    assert run(there, "forward", "a\n@b.example").returncode == 100
    there.service.stop()
    done = run(there, "forward", "bob@b.example")
    assert done.returncode == 111
    assert b"out of reach" in done.stderr


def test_no_second_field(there: Injection) -> None:
    """A DTLINE with line ends in it stays one line."""
    env = {**DELIVERY, "DTLINE": "Delivered-To: a\nBcc: b\r\n\nbody\n"}
    assert run(there, "forward", "bob@b.example", env=env).returncode == 0
    assert there.only().message == b"Delivered-To: a_Bcc: b___body\n" + MESSAGE


# condredirect


def test_condredirect(there: Injection) -> None:
    """If the program says yes, having read some of the message, all of it goes to the address, from SENDER: 99."""
    done = redirect(there, "grep -q Subject")
    assert (done.returncode, done.stdout, done.stderr) == (99, b"", b"")
    queued = there.only()
    assert queued.envelope.sender == b"joe@x.example"
    assert queued.recipients == [b"new@n.example"]
    assert queued.message == b"Delivered-To: ann@a.example\n" + MESSAGE


def redirect(there: Injection, command: str) -> Result:
    argv = ("condredirect", "new@n.example", "sh", "-c", command)
    return there.run(*argv, input=MESSAGE, env=DELIVERY, seekable=True)


@pytest.mark.parametrize(
    ("command", "code"), [("exit 1", 0), ("exit 99", 0), ("exit 100", 0), ("exit 111", 111), ("kill -9 $$", 111)]
)
def test_condredirect_says_no(there: Injection, command: str, code: int) -> None:
    """Any exit but 0 goes on with the next line; 111 and a crash are tried again."""
    assert redirect(there, command).returncode == code
    assert there.queued() == []


def test_condredirect_cannot(there: Injection) -> None:
    """Usage and a missing SENDER are 100; a program that is not there counts as its exit 100; no queue is 111."""
    assert run(there, "condredirect", "new@n.example").returncode == 100
    assert run(there, "condredirect", "new@n.example", "true", env={"DTLINE": "x\n"}).returncode == 100
    done = run(there, "condredirect", "new@n.example", "no-such-program")
    assert (done.returncode, b"cannot run" in done.stderr) == (0, True)
    assert run(there, "condredirect", "new@n.example", "true").returncode == 111  # a pipe cannot be read again
    there.service.stop()
    assert redirect(there, "true").returncode == 111


# bouncesaying and except


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 100), ("exit 1", 0), ("exit 99", 0), ("exit 100", 0), ("exit 111", 111), ("kill -9 $$", 111)],
)
def test_conditions(there: Injection, command: str, code: int) -> None:
    """bouncesaying and except bounce on yes; 111 and a crash are tried again; all else goes on."""
    done = run(there, "bouncesaying", "go away", "sh", "-c", command)
    assert done.returncode == code
    assert (b"go away\n" in done.stderr) == (code == 100)
    assert run(there, "except", "sh", "-c", command).returncode == code


def test_bouncesaying_always(there: Injection) -> None:
    """Without a program it always bounces."""
    done = run(there, "bouncesaying", "go away")
    assert (done.returncode, done.stdout, done.stderr) == (100, b"", b"go away\n")
    assert run(there, "bouncesaying").returncode == 100
    assert run(there, "except").returncode == 100


def test_the_program_reads_the_message(there: Injection) -> None:
    """What a condition runs has the message on descriptor 0, and the environment."""
    assert run(there, "except", "sh", "-c", "grep -q ^Subject: && test $SENDER = joe@x.example").returncode == 100
    assert run(there, "except", "except", "true").returncode == 0


# preline


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ([], ["UFLINE", "RPLINE", "DTLINE"]),
        (["-f"], ["RPLINE", "DTLINE"]),
        (["-r"], ["UFLINE", "DTLINE"]),
        (["-d"], ["UFLINE", "RPLINE"]),
        (["-frd"], []),
        (["-frdFRD"], ["UFLINE", "RPLINE", "DTLINE"]),
        (["-frdR"], ["RPLINE"]),
    ],
)
def test_preline(there: Injection, options: list[str], want: list[str]) -> None:
    """Its program reads From_, Return-Path and Delivered-To lines, and the message."""
    done = run(there, "preline", *options, "cat", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "".join(DELIVERY[name] for name in want).encode() + MESSAGE


def test_preline_exits(there: Injection) -> None:
    """Its exit code is the program's; 111 if that was killed; 100 without all three variables."""
    assert run(there, "preline", "sh", "-c", "exit 99").returncode == 99
    assert run(there, "preline", "sh", "-c", "kill -9 $$").returncode == 111
    assert run(there, "preline", "no-such-program").returncode == 100
    assert run(there, "preline").returncode == 100
    assert run(there, "preline", "-x", "cat").returncode == 100
    assert run(there, "preline", "true", input=b"x" * 1_000_000).returncode == 0
    for missing in ("UFLINE", "RPLINE", "DTLINE"):
        env = {name: value for name, value in DELIVERY.items() if name != missing}
        assert run(there, "preline", "-frd", "cat", env=env).returncode == 100


def test_preline_of_one_of_ours(there: Injection) -> None:
    """A program of ours after preline reads the same."""
    assert run(there, "preline", "-f", "forward", "bob@b.example").returncode == 0
    lines = b"Return-Path: <joe@x.example>\nDelivered-To: ann@a.example\n"
    assert there.only().message == b"Delivered-To: ann@a.example\n" + lines + MESSAGE


# qreceipt


ASKING = b"Notice-Requested-Upon-Delivery-To: Ann <ann@a.example>, other@x.example\n" + MESSAGE


def test_qreceipt(there: Injection) -> None:
    """Who asks for it gets a notice from nobody, which quotes the Message-ID and calls itself automatic."""
    done = run(there, "qreceipt", "ann@a.example", input=ASKING)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    queued = there.only()
    assert (queued.envelope.sender, queued.recipients) == (b"", [b"joe@x.example"])
    lines = queued.message.split(b"\n")
    assert {b"To: <joe@x.example>", b"Subject: success notice", b"Auto-Submitted: auto-replied"} < set(lines)
    assert lines[-2:] == [b"Your Message-ID: <m@x>", b""]
    assert re.match(rb"Date: .*\nMessage-ID: <.*@a\.example>\nFrom: .* <ann@a\.example>\n", queued.message)


@pytest.mark.parametrize(
    ("address", "message", "sender"),
    [
        ("ann@a.example", MESSAGE, "joe@x.example"),
        ("Ann@a.example", ASKING, "joe@x.example"),
        ("ann@a", ASKING, "joe@x.example"),
        ("ann@a.example", ASKING, ""),
        ("ann@a.example", ASKING, "#@[]"),
        ("ann@a.example", MESSAGE + ASKING, "joe@x.example"),
        ("ann@a.example", b"Notice-Requested-Upon-Delivery-To: (ann@a.example\n\n", "joe@x.example"),
    ],
)
def test_no_receipt(there: Injection, address: str, message: bytes, sender: str) -> None:
    """Without being asked, for another address, or for no sender there is no notice, and all is well."""
    done = run(there, "qreceipt", address, input=message, env={**DELIVERY, "SENDER": sender})
    assert (done.returncode, done.stderr) == (0, b"")
    assert there.queued() == []


def test_qreceipt_cannot(there: Injection) -> None:
    """Usage is 100, no queue 111, a sender with a line end in it 100."""
    assert run(there, "qreceipt").returncode == 100
    assert run(there, "qreceipt", "ann@a.example", env={}).returncode == 100
    evil = {**DELIVERY, "SENDER": "joe@x\nBcc: evil@x.example"}
    assert run(there, "qreceipt", "ann@a.example", input=ASKING, env=evil).returncode == 100
    assert there.queued() == []
    there.service.stop()
    assert run(there, "qreceipt", "ann@a.example", input=ASKING).returncode == 111


# qbiff


def test_qbiff(there: Injection) -> None:
    """qbiff never holds mail up."""
    assert run(there, "qbiff").returncode == 0
    assert run(there, "qbiff", env={"USER": "nobody-of-that-name"}).returncode == 0


# qm-vacation; whom it answers is in tests/unit/vacation


def test_vacation(there: Injection) -> None:
    """A person who wrote to the reader gets one answer in a week, from nobody."""
    (there.folder / ".vacation.msg").write_text("I am away.\nAs to $SUBJECT: later.")
    for _ in range(2):
        done = run(there, "qm-vacation")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    queued = there.only()
    assert (queued.envelope.sender, queued.recipients) == (b"", [b"joe@x.example"])
    header, _, body = queued.message.partition(b"\n\n")
    lines = set(header.split(b"\n"))
    assert {b"From: <ann@a.example>", b"To: <joe@x.example>", b"Subject: Auto: hi"} < lines
    assert {b"Auto-Submitted: auto-replied", b"In-Reply-To: <m@x>", b"References: <m@x>"} < lines
    assert body == b"I am away.\nAs to hi: later.\n"
    memory = there.folder / ".vacation.answered"
    assert re.fullmatch(rb"\d+ joe@x\.example\n", memory.read_bytes())
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600


def test_vacation_options(there: Injection) -> None:
    """-a names more addresses, -j answers whatever it says, -d sets the days, an argument the file."""
    (there.folder / "away").write_text("Subject: gone\n\nbye\n")
    other = MESSAGE.replace(b"ann@a.example", b"ann@old.example")
    assert run(there, "qm-vacation", "away", input=other).returncode == 0
    assert there.queued() == []
    assert run(there, "qm-vacation", "-a", "Ann@OLD.example", "away", input=other).returncode == 0
    assert b"\nSubject: gone\n" in there.only().message
    env = {**DELIVERY, "SENDER": "sue@x.example"}
    assert run(there, "qm-vacation", "-j", "-d30", "away", input=other, env=env).returncode == 0
    assert len(there.queued()) == 2


def test_vacation_forgets(there: Injection) -> None:
    """After its days a sender is answered again; a mangled memory is no obstacle."""
    (there.folder / ".vacation.msg").write_text("bye\n")
    (there.folder / ".vacation.answered").write_bytes(b"1000 joe@x.example\n\xff\n99999999999999999999 a@b\nx y\n")
    assert run(there, "qm-vacation").returncode == 0
    assert len(there.queued()) == 1


def test_vacation_in_trouble(there: Injection) -> None:
    """Trouble is told, and the mail itself goes on; a wrong command line makes it wait for its owner."""
    done = run(there, "qm-vacation")
    assert (done.returncode, b".vacation.msg: No such file" in done.stderr) == (0, True)
    (there.folder / ".vacation.msg").write_text("bye\n")
    done = run(there, "qm-vacation", env={})
    assert (done.returncode, b"SENDER is not set" in done.stderr) == (0, True)
    there.service.stop()
    done = run(there, "qm-vacation")
    assert (done.returncode, b"out of reach" in done.stderr) == (0, True)
    for argv in (["-d", "0"], ["-d", "x"], ["-x"], ["a", "b"]):
        assert run(there, "qm-vacation", *argv).returncode == 111


# all of them where they belong


@pytest.mark.parametrize("open_home", [pytest.param(True, marks=pytest.mark.needs_root), False])
def test_in_a_dot_qmail_file(
    make_suite: Callable[..., Suite], open_folder: Path, tmp_path: Path, open_home: bool
) -> None:
    """From a user's .qmail file they find the queue, also where the user cannot search what is above the home."""
    suite = make_suite(open_folder if open_home else tmp_path)
    suite.add_user("bob", "secret")
    lines = ["|except grep -q ^X-Bad:", "|condredirect bob sh -c 'grep -q ^X-Bob:'", "|forward bob-x", "./Maildir/"]
    suite.dot_qmail("ann", "\n".join(lines))
    suite.dot_qmail("bob", "|preline -f sh -c 'cat > seen'\n./Maildir/\n")
    suite.dot_qmail("bob", "|bouncesaying 'not here'\n", "-x")
    suite.start()
    suite.send("ann@test.example", b"X-Bob: y\r\n\r\n")
    (mail,) = suite.wait_for_mail(name="bob")
    assert b"\nDelivered-To: ann@test.example\n" in mail
    seen = (suite.home / "home/bob/seen").read_bytes()
    assert seen.startswith(b"Return-Path: <bob@elsewhere.example>\nDelivered-To: bob@test.example\nReceived: ")
    suite.send("ann@test.example", b"X-Good: y\r\n\r\n")
    suite.wait_for_mail()
    suite.wait_for_log(r"to local bob-x@test\.example")
    suite.wait_for_log(r"delivery \d+: failure: not_here")
    assert os.path.exists(suite.home / "home/ann/Maildir")
