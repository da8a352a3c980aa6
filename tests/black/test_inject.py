"""qm-inject as a real program (qmail.md 16.1); what it makes of headers is in tests/corpus/header."""

import calendar
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.wire.envelope import ADDRESS_MAX
from qm.wire.rfc822 import HEADER_MAX
from tests.harness.injection import Injection
from tests.harness.queueservice import PYTHON, QueueService
from tests.harness.suite import BIN

DATE = rb"Date: \w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
MESSAGE_ID = rb"Message-ID: <\d{14}\.\d+\.qmail@test\.example>\n"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Injection]:
    """A queue service that runs."""
    service = QueueService(tmp_path / "home").start()
    yield Injection(service)
    if service.process is not None:
        assert service.stop() == 0


def test_a_message_is_queued(there: Injection) -> None:
    """What is missing is put in, recipients come from the header, nothing is said."""
    done = there.run("qm-inject", input=b"To: ann\nBcc: bob@b.example\n\nbody")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    queued = there.only()
    assert queued.envelope.sender == b"joe@test.example"
    assert queued.recipients == [b"ann@test.example", b"bob@b.example"]
    want = DATE + MESSAGE_ID + rb"From: joe@test\.example\nTo: ann@test\.example\n\nbody\n"
    assert re.fullmatch(want, queued.message)


def test_print(there: Injection) -> None:
    """-n prints the result, with a Return-Path first, and queues nothing; the last of -n and -N counts."""
    done = there.run("qm-inject", "-Nn", "a@b.example", input=b"Subject: x\n\nbody\n", env={"QMAILINJECT": "r"})
    assert (done.returncode, done.stderr) == (0, b"")
    want = rb'Return-Path: <"joe-@test\.example-"@\[\]>\n' + DATE + MESSAGE_ID
    assert re.match(want, done.stdout)
    assert done.stdout.endswith(b"\nSubject: x\n\nbody\n")
    assert there.queued() == []
    assert there.run("qm-inject", "-nN", "a@b.example").returncode == 0
    assert len(there.queued()) == 1


def test_print_needs_no_queue(there: Injection) -> None:
    """-n works without a queue service; queueing fails for now, and says so."""
    there.service.stop()
    assert there.run("qm-inject", "-n", "a@b.example").returncode == 0
    done = there.run("qm-inject", "a@b.example")
    assert (done.returncode, done.stdout) == (111, b"")
    assert b"qm-inject: fatal: the queue is out of reach" in done.stderr


@pytest.mark.parametrize(
    ("argv", "input", "said"),
    [
        (["-x"], b"", b"usage: qm-inject"),
        (["-f"], b"", b"usage: qm-inject"),
        (["a@b c"], b"", b"unable to parse an address (a@b c: "),
        (["-fa@b(", "a@b"], b"", b"unable to parse an address"),
        (["a@b"], b"From: (\n", b"unable to parse this line (From: (: "),
        (["a@b\nc"], b"", b"line end"),
        (["-f", "a\r@b", "c@d"], b"", b"line end"),
        (["a@" + "b" * ADDRESS_MAX], b"", b"an address is too long"),
        ([], b"To: (\n", b"unable to parse the recipients of To"),
    ],
)
def test_refused(there: Injection, argv: list[str], input: bytes, said: bytes) -> None:
    """What can never be queued is exit 100, and says why in one line."""
    done = there.run("qm-inject", *argv, input=input)
    assert done.returncode == 100
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert there.queued() == []


def test_a_header_without_end(there: Injection) -> None:
    """A header that is too long is refused before it is all read."""
    done = there.run("qm-inject", "a@b", input=b"A: " + b"x" * (HEADER_MAX + 100_000))
    assert done.returncode == 100
    assert b"header is longer than" in done.stderr


@pytest.mark.parametrize(
    ("control", "env", "want"),
    [
        ("", "", b"a@test.example b@h.test.example c@d.test.example"),
        ("host=x domain=y.z plus=p.z", "", b"a@x.y.z b@h.y.z c@d.p.z"),
        ("host=x.z", "DEFAULTHOST=e.z", b"a@e.z b@h.test.example c@d.test.example"),
        ("domain=y.z", "DEFAULTDOMAIN=dom PLUSDOMAIN=plus", b"a@test.example b@h.dom c@d.plus"),
    ],
)
def test_defaults(there: Injection, control: str, env: str, want: bytes) -> None:
    """Hosts are completed by control files, whose default is control/me; the environment beats them."""
    files = {"host": "defaulthost", "domain": "defaultdomain", "plus": "plusdomain"}
    for word in control.split():
        there.service.control(files[word.split("=")[0]], word.split("=")[1] + "\n")
    variables = {"QMAIL" + word.split("=")[0]: word.split("=")[1] for word in env.split()}
    assert there.run("qm-inject", "a", "b@h", "c@d+", env=variables).returncode == 0
    assert b" ".join(there.only().recipients) == want


def test_id_host(there: Injection) -> None:
    """control/idhost and QMAILIDHOST are the host of Message-IDs."""
    there.service.control("idhost", "id.example\n")
    assert b".qmail@id.example>\n" in there.run("qm-inject", "-n").stdout
    assert b".qmail@env.example>\n" in there.run("qm-inject", "-n", env={"QMAILIDHOST": "env.example"}).stdout


def test_without_a_name(there: Injection) -> None:
    """Without control/me the names of the files are what is used, as in qmail."""
    (there.service.home / "control/me").unlink()
    done = there.run("qm-inject", "-n", input=b"To: a, b@c+\n\n")
    assert done.returncode == 0
    assert b"Return-Path: <joe@defaulthost.defaultdomain>\n" in done.stdout
    assert b".qmail@idhost>\n" in done.stdout
    assert b"\nTo: a@defaulthost.defaultdomain, b@c.plusdomain\n" in done.stdout


def test_the_date_is_that_of_greenwich(there: Injection) -> None:
    """Date, Message-ID and the m of QMAILINJECT tell the time of now, whatever TZ says."""
    before = int(time.time())
    done = there.run("qm-inject", "-n", "a@b.example", env={"TZ": "XYZ-05:30", "QMAILINJECT": "m"})
    after = int(time.time())
    made = re.match(
        rb"Return-Path: <joe-(\d+)\.(\d+)@.*\nDate: (.*) -0000\nMessage-ID: <(\d{14})\.(\d+)\.qmail@", done.stdout
    )
    assert made is not None
    told = [
        int(made[1]),
        calendar.timegm(time.strptime(made[3].decode(), "%a, %d %b %Y %H:%M:%S")),
        calendar.timegm(time.strptime(made[4].decode(), "%Y%m%d%H%M%S")),
    ]
    assert before <= min(told) == max(told) <= after
    assert made[2] == made[5]


def test_a_broken_control_file_is_temporary(there: Injection) -> None:
    """A control file with garbage is named; the message may be tried again."""
    there.service.control("defaulthost", "a b\n")
    done = there.run("qm-inject", "a@b.example")
    assert (done.returncode, there.queued()) == (111, [])
    assert b"control/defaulthost" in done.stderr
    assert there.run("qm-inject", "a@b.example", env={"QMAILDEFAULTHOST": "x\ny"}).returncode == 100


def test_mail_followup_to(there: Injection, tmp_path: Path) -> None:
    """QMAILMFTFILE names mailing lists, from where the caller is; a file that cannot be read names none."""
    (tmp_path / "lists").write_text("# mine\nLIST@l.example  \n")
    message = b"To: list@l.example\nCc: ann@a.example\n\n"
    done = there.run("qm-inject", "-n", input=message, env={"QMAILMFTFILE": str(tmp_path / "lists")})
    assert b"\nMail-Followup-To: ann@a.example,\n  list@l.example\n" in done.stdout
    (there.folder / "here").write_text("list@l.example")
    done = there.run("qm-inject", "-n", input=message, env={"QMAILMFTFILE": "here"})
    assert b"\nMail-Followup-To: ann@a.example,\n" in done.stdout
    done = there.run("qm-inject", "-n", input=message, env={"QMAILMFTFILE": str(tmp_path / "none")})
    assert (done.returncode, b"Followup" in done.stdout) == (0, False)


def test_a_large_message_is_streamed(there: Injection) -> None:
    """Megabytes pass as they are; NUL and long lines, too."""
    body = bytes(range(256)) * 20_000 + b"\n"
    assert there.run("qm-inject", "a@b.example", input=b"Subject: x\n\n" + body).returncode == 0
    queued = there.only()
    assert queued.message.endswith(b"\nSubject: x\n\n" + body)
    assert queued.envelope.eight_bit


def test_what_the_envelope_knows(there: Injection) -> None:
    """8-bit bytes and addresses in UTF-8 are told to whoever delivers; reports that were asked for, too."""
    env = {"QMAILNOTIFY": "success,failure", "QMAILRET": "HDRS", "QMAILENVID": "x+y"}
    there.run("qm-inject", "a@b.example", env=env)
    there.run("qm-inject", "jörg@b.example", input=b"Subject: \xe4\n")
    plain, special = (queued.envelope for queued in there.queued())
    assert (plain.eight_bit, plain.smtputf8, plain.ret, plain.envid) == (False, False, b"HDRS", b"x+2By")
    assert plain.recipients[0].notify == b"SUCCESS,FAILURE"
    assert (special.eight_bit, special.smtputf8, special.ret) == (True, True, b"")


def test_many_recipients(there: Injection) -> None:
    """Twenty thousand recipients of one field are taken."""
    addresses = b",\n ".join(b"user%d@host%d.example" % (n, n % 50) for n in range(20_000))
    assert there.run("qm-inject", input=b"Bcc: " + addresses + b"\n\n").returncode == 0
    queued = there.only()
    assert len(queued.recipients) == 20_000
    assert queued.recipients[-1] == b"user0@host0.example"
    assert b"user" not in queued.message


def test_no_recipients(there: Injection) -> None:
    """A message without recipients is queued, and send ends it (qmail.md 27.10)."""
    assert there.run("qm-inject", input=b"Subject: x\n").returncode == 0
    assert there.only().recipients == []


def test_an_interrupted_message_is_not_queued(there: Injection) -> None:
    """Whoever is killed while the message comes has queued nothing."""
    argv = [*PYTHON, BIN / "qm-inject", "a@b.example"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=there.service.env, cwd=there.folder) as process:
        assert process.stdin is not None
        process.stdin.write(b"Subject: x\n\n" + b"body\n" * 100_000)
        process.stdin.flush()
        process.kill()
    assert there.queued() == []


def test_descriptors_that_are_closed(there: Injection) -> None:
    """Without descriptor 0 there is no message, which is a temporary failure; without 1 and 2 all is well."""
    for closed, code in ((0, 111), (1, 0), (2, 0)):
        pid = os.fork()
        if pid == 0:
            os.closerange(closed, closed + 1)
            os.execve(BIN / "qm-inject", ["qm-inject", "a@b.example"], there.service.env)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert len(there.queued()) == 2
