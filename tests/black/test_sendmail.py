"""sendmail, mailq and newaliases as real programs, and the small wrappers of qmail.md 16.3."""

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.unix.following import FIRST_S
from tests.harness.injection import Injection
from tests.harness.peers import ScriptedMx
from tests.harness.queueservice import PYTHON, QueueService
from tests.harness.suite import BIN, Suite

MESSAGE = b"To: ann@a.example\nBcc: bob@b.example\nSubject: x\n\nbody\n"
STRANGER = 65533
BUDGET_S = 0.06  # for sendmail -t, on an idle machine of our class


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Injection]:
    """A queue service that runs."""
    service = QueueService(tmp_path / "home").start()
    yield Injection(service)
    if service.process is not None:
        assert service.stop() == 0


def test_recipients_are_arguments(there: Injection) -> None:
    """Without -t the header's recipients do not count; Bcc goes all the same."""
    done = there.run("sendmail", "x@x.example", input=MESSAGE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    queued = there.only()
    assert queued.recipients == [b"x@x.example"]
    assert queued.envelope.sender == b"joe@test.example"
    assert b"Bcc" not in queued.message


def test_recipients_of_the_header(there: Injection) -> None:
    """-t: arguments, and then the header's recipients (qmail.md 16.2)."""
    assert there.run("sendmail", "-t", "x@x.example", input=MESSAGE).returncode == 0
    assert there.only().recipients == [b"x@x.example", b"ann@a.example", b"bob@b.example"]


@pytest.mark.parametrize(
    ("argv", "env", "sender", "author"),
    [
        (["-fsue@s.example"], {}, b"sue@s.example", b"sue@s.example"),
        (["-f", "sue@s.example"], {"QMAILNAME": "Joe", "MAILHOST": "m.example"}, b"sue@s.example", b"sue@s.example"),
        (["-f", "sue"], {"QMAILHOST": "m.example"}, b"sue@test.example", b"sue@test.example"),
        (["-f", "sue"], {"MAILHOST": "m.example"}, b"sue@test.example", b"sue@test.example"),
        (["-f", "sue@s.example"], {"MAILNAME": "Joe"}, b"sue@s.example", b"sue@s.example"),
        (["-f", "sue@s.example"], {"NAME": "Joe"}, b"sue@s.example", b"sue@s.example"),
        (["-f", "sue@s.example"], {"QMAILUSER": "q", "QMAILSUSER": "s"}, b"sue@s.example", b"sue@s.example"),
        (["-f", "a@b@s.example"], {}, b"a@b@s.example", b'"a@b"@s.example'),
        (["-f", "<sue@s.example>"], {}, b"sue@s.example", b"sue@s.example"),
        (["-rsue@s.example"], {}, b"sue@s.example", b"sue@s.example"),
        (["-f", "<>"], {"NAME": "Joe"}, b"", b'"Joe" <joe@test.example>'),
        (["-f", ""], {}, b"", b"joe@test.example"),
        (["-FJoe User"], {}, b"joe@test.example", b'"Joe User" <joe@test.example>'),
        (["-F", "Joe"], {"QMAILNAME": "Q"}, b"joe@test.example", b'"Q" <joe@test.example>'),
        (["-F", "Joe", "-f", "sue@s.example"], {}, b"sue@s.example", b"sue@s.example"),
        (["-FJoe\nBcc: x@x.example"], {}, b"joe@test.example", b'"Joe Bcc: x@x.example" <joe@test.example>'),
    ],
)
def test_sender(there: Injection, argv: list[str], env: dict[str, str], sender: bytes, author: bytes) -> None:
    """-f names envelope sender and author, and beats the environment, also -F, which names the person (16.2, 26)."""
    assert there.run("sendmail", *argv, "x@x.example", input=b"\nbody\n", env=env).returncode == 0
    queued = there.only()
    assert queued.envelope.sender == sender
    assert b"\nFrom: " + author + b"\n" in queued.message
    assert b"\nBcc" not in queued.message


@pytest.mark.parametrize(
    "options",
    [
        "-i -m -x -n -bm -oi -oem -odq -o i -em -e m -pESMTP:x -p x -B8BITMIME -B 7BIT",
        "-E -Eabc -J -Jabc -h 3 -L tag -O DeliveryMode=b -X log -Am -G -U",
        "-im -toi",
        "-im --",
    ],
)
def test_what_is_ignored(there: Injection, options: str) -> None:
    """Options of other sendmails that mean nothing here are taken, with their arguments."""
    done = there.run("sendmail", *options.split(), "x@x.example", input=b"Subject: x\n\n.\nbody\n")
    assert (done.returncode, done.stderr) == (0, b"")
    queued = there.only()
    assert queued.recipients == [b"x@x.example"]
    assert queued.message.endswith(b"\n\n.\nbody\n")


@pytest.mark.parametrize(
    "argv",
    [
        ["-bd"],
        ["-bz", "x@x.example"],
        ["-bd", "-q1h"],
        ["-k", "x@x.example"],
        ["-f"],
        [],
        ["-i"],
        ["-f", "a\nb", "x@x.example"],
        ["x\n@x.example"],
        ["-N", "sometimes", "x@x.example"],
        ["-R", "half", "x@x.example"],
        ["-V", "x" * 101, "x@x.example"],
    ],
)
def test_refused(there: Injection, argv: list[str]) -> None:
    """Other -b modes, unknown options, no recipients at all, and what would break out of an envelope: exit 100."""
    done = there.run("sendmail", *argv, input=MESSAGE)
    assert (done.returncode, done.stdout) == (100, b"")
    assert done.stderr.startswith((b"sendmail: fatal: ", b"qm-inject: fatal: "))
    assert there.queued() == []


def test_reports(there: Injection) -> None:
    """-N, -R and -V ask for delivery reports (RFC 3461)."""
    done = there.run("sendmail", "-N", "success,delay", "-R", "hdrs", "-V", "id 1", "x@x.example", input=MESSAGE)
    assert done.returncode == 0
    envelope = there.only().envelope
    assert (envelope.recipients[0].notify, envelope.ret, envelope.envid) == (b"SUCCESS,DELAY", b"HDRS", b"id+201")


def test_list(suite: Suite) -> None:
    """mailq and -bp list what is in the queue."""
    suite.stop()
    suite.control("concurrencylocal", "0\n")
    suite.start()
    suite.send("ann@test.example", b"Subject: x\r\n\r\n")
    suite.wait_for_log("new msg")
    for argv in (["mailq"], ["sendmail", "-bp"]):
        done = suite.run(*argv)
        assert (done.returncode, b"ann@test.example" in done.stdout) == (0, True)


def test_no_queue(there: Injection) -> None:
    """Without a queue it is a temporary failure; without a home, too."""
    there.service.stop()
    assert there.run("sendmail", "x@x.example").returncode == 111
    assert there.run("sendmail", "x@x.example", env={"QMHOME": "/nowhere"}).returncode == 111


def test_smtp(suite: Suite) -> None:
    """-bs talks SMTP on 0 and 1 with somebody who may send anywhere; what it takes is delivered."""
    talk = b"EHLO me\r\nMAIL FROM:<joe@test.example>\r\nRCPT TO:<ann@test.example>\r\nRCPT TO:<x@y.invalid>\r\nDATA\r\n"
    done = suite.run("sendmail", "-bs", input=talk + b"Subject: by bs\r\n\r\nbody\r\n.\r\nQUIT\r\n")
    assert done.returncode == 0
    codes = [line[:3] for line in done.stdout.splitlines() if line[3:4] == b" "]
    assert codes == [b"220", b"250", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert b"Subject: by bs\n" in suite.wait_for_mail()[0]


def test_who_talks_by_bs(make_suite: Callable[..., Suite]) -> None:
    """-bs is localhost to smtpd, and no limit of size counts, as its environment says (qmail.md 16.2)."""
    suite = make_suite()
    suite.control("databytes", "100\n")
    suite.start()
    talk = b"HELO me\r\nMAIL FROM:<joe@test.example>\r\nRCPT TO:<ann@test.example>\r\nDATA\r\n"
    done = suite.run("sendmail", "-bs", input=talk + b"\r\n" + b"x" * 500 + b"\r\n.\r\nQUIT\r\n")
    assert done.returncode == 0
    mail = suite.wait_for_mail()[0]
    assert b"\nReceived: from me (sendmail-bs@localhost [127.0.0.1])\n" in mail


def test_the_environment_of_bs(there: Injection) -> None:
    """-bs gives smtpd the whole environment that qmail.md 16.2 says, and what it runs sees it."""
    there.folder.chmod(0o777)
    queue = there.folder / "queue"
    queue.write_text("#!/bin/sh\nenv > work/seen\ncat > /dev/null\n")
    queue.chmod(0o755)
    talk = b"HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<ann@test.example>\r\nDATA\r\n\r\nx\r\n.\r\nQUIT\r\n"
    done = there.run("sendmail", "-bs", input=talk, env={"QMAILQUEUE": "work/queue"})
    assert done.returncode == 0
    wanted = "PROTO=TCP TCPLOCALIP=127.0.0.1 TCPLOCALHOST=localhost TCPREMOTEIP=127.0.0.1 TCPREMOTEHOST=localhost"
    assert {*wanted.split(), "TCPREMOTEINFO=sendmail-bs", "RELAYCLIENT=", "DATABYTES=0"} < set(
        (there.folder / "seen").read_text().splitlines()
    )


def test_smtp_in_a_given_environment(suite: Suite) -> None:
    """-bs leaves the environment alone if PROTO is set: then relaying is for its rules to say."""
    env = {"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1", "TCPREMOTEHOST": "far.example"}
    done = suite.run("sendmail", "-bs", input=b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.invalid>\r\nQUIT\r\n", env=env)
    assert b"\r\n553 5.7.1 " in done.stdout


def test_the_queue_is_tried_now(suite: Suite) -> None:
    """-q makes the running system try all its mail now."""
    later = suite.home / "home/ann/Later"
    suite.dot_qmail("ann", "./Later/\n", "-later")
    for count, words in enumerate((["-q"], ["-q30m"]), 1):
        suite.send("ann-later@test.example", b"Subject: x\r\n\r\nbody\r\n")
        suite.wait_for(lambda count=count: suite.log().count(": deferral: ") == count, "a mailbox is missing")
        later.symlink_to("Maildir")
        assert suite.run("sendmail", *words).returncode == 0
        suite.wait_for_mail(count)
        suite.wait_until_idle()
        later.unlink()


def test_nothing_runs(there: Injection) -> None:
    """-q without a running system fails for now."""
    assert there.run("sendmail", "-q").returncode == 111


def test_a_whole_delivery(suite: Suite) -> None:
    """What sendmail takes arrives."""
    done = suite.run("sendmail", "-t", "-i", input=b"To: ann\nSubject: x\n\n.\nbody\n", env={"USER": "joe"})
    assert done.returncode == 0
    (mail,) = suite.wait_for_mail()
    assert mail.startswith(b"Return-Path: <joe@test.example>\nDelivered-To: ann@test.example\n")
    assert mail.endswith(b"\nTo: ann@test.example\nSubject: x\n\n.\nbody\n")


def _as_user(suite: Suite, *argv: str, input: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a program of ours as a user who is nobody to the suite."""
    command = [*PYTHON, str(BIN / argv[0]), *argv[1:]]
    return subprocess.run(
        command, input=input, env=suite.env, cwd="/", user=STRANGER, group=STRANGER, extra_groups=[],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.needs_root
def test_by_a_user(make_suite: Callable[[Path], Suite], open_folder: Path) -> None:
    """Any user of the machine may send, also by SMTP; only the owner may have all mail tried."""
    suite = make_suite(open_folder).start()
    done = _as_user(suite, "sendmail", "ann@test.example", input=b"Subject: x\n\n")
    assert (done.returncode, done.stderr) == (0, b"")
    suite.wait_for_mail()
    talk = b"EHLO me\r\nMAIL FROM:<joe@test.example>\r\nRCPT TO:<ann@test.example>\r\nDATA\r\nA: b\r\n.\r\nQUIT\r\n"
    done = _as_user(suite, "sendmail", "-bs", input=talk)
    assert (done.returncode, done.stdout.count(b"\r\n250 ")) == (0, 4)
    suite.wait_for_mail(2)
    assert _as_user(suite, "sendmail", "-q", input=b"").returncode == 100


def test_mailsubj(there: Injection) -> None:
    """mailsubj makes subject, To and body; line ends in its arguments make no field."""
    done = there.run("mailsubj", "hi\nBcc: x@x.example", "ann", "Bob <bob@b.example>", input=b"body\n")
    assert (done.returncode, done.stderr) == (0, b"")
    queued = there.only()
    assert queued.recipients == [b"bob@b.example", b"ann@test.example"]
    to = b"To: ann@test.example, Bob <bob@b.example>\n"
    assert queued.message.endswith(b"\nSubject: hi Bcc: x@x.example\n" + to + b"\nbody\n")
    assert there.run("mailsubj", "hi").returncode == 100
    assert there.run("mailsubj", "hi", "(").returncode == 100
    there.service.stop()
    assert there.run("mailsubj", "hi", "ann").returncode == 111


@pytest.mark.parametrize(
    ("zone", "offset"), [("UTC", b"+0000"), ("XYZ-05:30", b"+0530"), ("XYZ3:15", b"-0315"), ("XYZ-14", b"+1400")]
)
def test_predate(there: Injection, zone: str, offset: bytes) -> None:
    """predate puts the date of the local clock before the message that its program reads."""
    before = time.time()
    done = there.run("predate", "cat", "-", input=b"Subject: x\n\nbody\n", env={"TZ": zone})
    assert (done.returncode, done.stderr) == (0, b"")
    match = re.fullmatch(rb"Date: (\w{3}, \d+ \w{3} \d{4} [\d:]{8}) (.*)\nSubject: x\n\nbody\n", done.stdout)
    assert match is not None
    assert match[2] == offset
    told = time.mktime(time.strptime(match[1].decode(), "%a, %d %b %Y %H:%M:%S")) - time.timezone
    east = (1 if offset[:1] == b"+" else -1) * (int(offset[1:3]) * 3600 + int(offset[3:]) * 60)
    assert before - 1 <= told - east <= time.time()


def test_predate_exits(there: Injection) -> None:
    """Its exit code is the program's; 111 if that was killed, 100 without one."""
    assert there.run("predate", "sh", "-c", "exit 7").returncode == 7
    assert there.run("predate", "sh", "-c", "kill -9 $$").returncode == 111
    assert there.run("predate", "true", input=b"x" * 1_000_000).returncode == 0
    assert there.run("predate", "no-such-program").returncode == 100
    assert there.run("predate").returncode == 100


def test_datemail(there: Injection) -> None:
    """datemail is sendmail with a local date."""
    done = there.run("datemail", "-t", input=MESSAGE, env={"TZ": "XYZ-05:30"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"^Date: .* \+0530\n(?!.*Date:)", there.only().message, re.MULTILINE | re.DOTALL)
    assert there.run("datemail", "-bd").returncode == 100


def test_it_is_fast(there: Injection) -> None:
    """sendmail -t starts, queues and exits within 60 ms of CPU time; of many runs the best counts: others run, too."""
    costs = []
    for _ in range(15):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert there.run("sendmail", "-t", input=MESSAGE).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < BUDGET_S


@pytest.fixture
def watched(make_suite: Callable[..., Suite], open_folder: Path, tmp_path: Path) -> Iterator[tuple[Suite, ScriptedMx]]:
    """A suite whose mail for others goes to a host that refuses one recipient in two, and says an escape."""
    with ScriptedMx(tmp_path, {"RCPT": ["250 2.1.5 fine", "550 5.1.1 no\x1b[31msuch user"]}) as mx:
        suite = make_suite(open_folder)
        suite.control("smtproutes", f":127.0.0.1:{mx.port}\n")
        yield suite.start(), mx


def _verbose(suite: Suite, *recipients: str, uid: int | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PYTHON, str(BIN / "sendmail"), "-v", "-fann@test.example", *recipients],
        input=b"Subject: x\n\nbody\n", env=suite.env, cwd="/", capture_output=True, timeout=60, check=False,
        **({} if uid is None else {"user": uid, "group": uid, "extra_groups": []}),
    )  # fmt: skip


def test_the_dialogue(watched: tuple[Suite, ScriptedMx]) -> None:
    """-v shows what both sides of the SMTP session say, and what became of each recipient, then ends."""
    suite, _ = watched
    done = _verbose(suite, "far1@far.example", "far2@far.example", "ann@test.example")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    for line in [
        "220 mx.test ESMTP", ">>> MAIL FROM:<ann@test.example> SIZE=", ">>> RCPT TO:<far1@far.example>",
        "250 2.1.5 fine", "550 5.1.1 no?[31msuch user", ">>> DATA", "354 go ahead",
        "far1@far.example... success: ", "far2@far.example... failure: ", "ann@test.example... success: ",
    ]:  # fmt: skip
        assert any(found.startswith(line) for found in lines), (line, lines)
    assert "body" not in done.stdout.decode()


MAILERS = {  # their names, and how each is told of our sendmail
    "bsd-mailx": ["/usr/bin/bsd-mailx"],
    "s-nail": ["/usr/bin/s-nail", "-:/", "-Sv15-compat", f"-Smta={BIN / 'sendmail'}"],
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in MAILERS])
def test_the_dialogue_by_mail(watched: tuple[Suite, ScriptedMx], tmp_path: Path, name: str) -> None:
    """``mail -v`` of BSD and of Heirloom show it too, and end when it has ended."""
    suite, _ = watched
    (tmp_path / "rc").write_text(f"set sendmail={BIN / 'sendmail'}\n")
    env = {**suite.env, "HOME": str(tmp_path), "MAILRC": str(tmp_path / "rc")}
    argv = [*MAILERS[name], "-v", "-s", "x", "far1@far.example", "far2@far.example", "ann@test.example"]
    done = subprocess.run(argv, input=b"Hi\n", env=env, cwd="/", capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    for line in [
        "220 mx.test ESMTP", ">>> RCPT TO:<far1@far.example>", "550 5.1.1 no?[31msuch user", ">>> DATA",
        "ann@test.example... success: ",
    ]:  # fmt: skip
        assert any(found.startswith(line) for found in lines), (line, lines)
    verdicts = [found.split("... ")[1].split(":")[0] for found in lines if found.startswith("far")]
    assert sorted(verdicts) == ["failure", "success"]
    assert b"Hi" in suite.wait_for_mail()[0]


@pytest.mark.needs_root
def test_the_dialogue_is_the_senders(watched: tuple[Suite, ScriptedMx]) -> None:
    """A user sees his message's; whoever has the name of another's place hears nothing, nor can tell him anything."""
    suite, _ = watched
    done = _verbose(suite, "far1@far.example", uid=STRANGER)
    assert b"354 go ahead\n" in done.stdout
    script = (
        "import os, socket, sys; pid = os.fork()\n"
        "if pid == 0:\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(b'\\0qm-follow-%d' % os.getppid())\n"
        "    os.setuid(65532); s.listen(5); s.settimeout(3); print(flush=True)\n"
        "    try:\n"
        "        c, _ = s.accept(); print('heard', c.recv(100))\n"
        "    except OSError: pass\n"
        "    os._exit(0)\n"
        f"os.execv('/usr/bin/python3', ['python3', '-IS', {str(BIN / 'sendmail')!r}, '-v', 'far1@far.example'])\n"
    )
    squatted = subprocess.run(
        ["/usr/bin/python3", "-c", script], input=b"Subject: x\n\nx\n", env=suite.env, cwd="/", capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    suite.wait_for(lambda: suite.log().count("to remote far1@") == 2, "its delivery")
    assert b"heard b'" not in squatted.stdout.replace(b"heard b''", b"")


def test_a_follower_who_does_not_listen(watched: tuple[Suite, ScriptedMx]) -> None:
    """One that stands still holds up no delivery; later he reads of its outcome after what was said."""
    suite, _ = watched
    process = subprocess.Popen(
        [*PYTHON, str(BIN / "sendmail"), "-v", "-fann@test.example", "far1@far.example"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=suite.env, cwd="/",
    )  # fmt: skip
    pid = suite.pid_of("qm-send")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert process.stdin is not None
        process.stdin.write(b"Subject: x\n\nx\n")
        process.stdin.close()
        process.stdin = None
        suite.wait_for(lambda: list(suite.home.glob("queue/new/*")), "the message")
        os.kill(process.pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)
    suite.wait_for_log(r"delivery \d+: success")
    suite.wait_until_idle()
    os.kill(process.pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.index(b"\n354 go ahead\n250 ") < said.index(b"\nfar1@far.example... success: ")


def test_nobody_can_be_followed(there: Injection) -> None:
    """Under QMAILQUEUE that program has the message: a -v waits for nothing, and says so."""
    queue = there.folder / "queue"
    queue.write_text("#!/bin/sh\ncat > /dev/null\n")
    queue.chmod(0o755)
    env = {"QMAILQUEUE": str(queue)}
    before = time.monotonic()
    done = there.run("sendmail", "-v", "x@x.example", input=MESSAGE, env=env)
    assert time.monotonic() - before < FIRST_S
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"sendmail: warning: cannot follow the deliveries: QMAILQUEUE's program has the message\n"
    queue.write_text("#!/bin/sh\nexit 31\n")
    done = there.run("sendmail", "-v", "x@x.example", input=MESSAGE, env=env)
    assert (done.returncode, b"follow" in done.stderr) == (100, False)


def test_the_message_counts(there: Injection) -> None:
    """Where nothing can be shown, a -v says so, and the message is queued, once, with exit 0."""
    done = there.run("sendmail", "-v", "x@x.example", input=MESSAGE)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"sendmail: warning: cannot follow the deliveries: ")
    assert there.only().recipients == [b"x@x.example"]
