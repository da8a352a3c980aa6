"""The log of send in qmail's own format: line by line, and as log analysers of others read it."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.harness.peers import ScriptedMx
from tests.harness.suite import DOMAIN, Suite

SERVICES: Final = "/usr/share/logwatch/scripts/services"
ANN: Final = f"ann@{DOMAIN}"
ID: Final = rb"[0-9a-z]{18}[bds]*"
WORD: Final = rb"[!-$&-~]*"  # qmail.md 7.9: no blank, no control byte, nothing beyond ASCII, no %
GRAMMAR: Final = re.compile(
    rb"status: local \d+/\d+ remote \d+/\d+( exitasap)?"
    rb"|new msg " + ID + rb"|info msg " + ID + rb": bytes \d+ from <" + WORD + rb"> qp \d+ uid \d+"
    rb"|starting delivery \d+: msg " + ID + rb" to (local|remote) " + WORD +
    rb"|delivery \d+: (success|deferral|failure): " + WORD +
    rb"|delivery \d+: report mangled, will defer"
    rb"|bounce msg " + ID + rb" qp " + ID + rb"|triple bounce: discarding bounce/" + ID + rb"|end msg " + ID +
    rb"|status: exiting"
)  # fmt: skip
COUNTED: Final = {  # a part of the report, and what it counts
    "Emails from": r" from <(.*?)> qp ",
    "Emails to Remote Server": r"starting .* to remote (.*)",
    "Emails to Local Server": r"starting .* to local (.*)",
}
HOSTILE: Final = b"a\x1b[31mb\x07%s%n\xe2\x80\xae\x9bc"


def _lines(suite: Suite) -> list[bytes]:
    """What send has said; other programs' lines begin with their names."""
    found = [path.read_bytes().splitlines() for path in sorted(suite.home.glob("log/*"))]
    lines = [line.partition(b" ")[2] for lines in found for line in lines]
    return [line for line in lines if not re.match(rb"(qm-(?!send)[a-z]+|checkpassword|tcpserver): ", line)]


def _queue(suite: Suite, sender: bytes, *recipients: bytes) -> None:
    envelope = b"F%b\0" % sender + b"".join(b"T%b\0" % recipient for recipient in recipients) + b"\0"
    assert suite.queue(b"Subject: x\n\nx\n", envelope) == 0


@pytest.fixture
def worked(suite: Suite, tmp_path: Path) -> Iterator[Suite]:
    """A suite after deliveries of each kind, outcome and sender."""
    replies = ["250 2.1.5 fine", "550 5.1.1 no such user", "451 4.3.0 later", "250 2.1.5 fine"]
    with ScriptedMx(tmp_path, {"RCPT": [*replies]}) as mx:
        suite.stop()
        suite.control("smtproutes", f":127.0.0.1:{mx.port}\n")
        suite.dot_qmail("alias", "|printf 'a\\033[31m%%s \\n' >&2; echo busy; exit 111\n", "-busy")
        suite.start()
        for number in range(3):
            _queue(suite, ANN.encode(), b"far%d@far.example" % number)
            suite.wait_for_log(rf"starting delivery \d+: .*far{number}@")
            suite.wait_for(lambda: _settled(suite), "the delivery's end")
        _queue(suite, b"x@elsewhere.example", ANN.encode(), b"busy@" + DOMAIN.encode())
        _queue(suite, b"", b"nobody@" + DOMAIN.encode())  # a bounce that bounces
        _queue(suite, b"#@[]", b"nobody@" + DOMAIN.encode())  # one that is thrown away
        _queue(suite, HOSTILE + b"@elsewhere.example", HOSTILE + b"@" + DOMAIN.encode(), HOSTILE + b"@far.example")
        suite.wait_for_log("triple bounce")
        suite.wait_for_log("deferral: busy|deferral: .*busy")
        suite.wait_for(lambda: _settled(suite), "the deliveries' end")
        yield suite


def _settled(suite: Suite) -> bool:
    lines = _lines(suite)
    begun = sum(line.startswith(b"starting delivery ") for line in lines)
    return begun == sum(line.startswith(b"delivery ") for line in lines) and not list(suite.home.glob("queue/new/*"))


def test_each_line_is_qmails(worked: Suite) -> None:
    """Every line of send has a shape of qmail's (qmail.md 7.9), with every value escaped."""
    worked.stop()
    strange = [line for line in _lines(worked) if not GRAMMAR.fullmatch(line)]
    assert strange == []
    shapes = {re.sub(rb"[\d:].*", b"", line) for line in _lines(worked)}
    assert len(shapes) >= 8  # the test has seen them all


@pytest.mark.needs("logwatch")
@pytest.mark.parametrize("service", ["qmail", "qmail-send"])
def test_logwatch(worked: Suite, service: str) -> None:
    """logwatch's own scripts count senders, recipients and replies as they were, and know every line."""
    worked.stop()
    lines = _lines(worked)
    everything = {"LOGWATCH_DETAIL_LEVEL": "10", "qmail_high_detail": "1"}
    everything |= dict.fromkeys(("threshold", "remote_threshold", "local_threshold", "from_threshold"), "0")
    done = subprocess.run(
        ["perl", "-I/usr/share/logwatch/lib", f"{SERVICES}/{service}"],
        input=b"\n".join([*lines, b""]), env=everything, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    report = done.stdout.decode()
    unknown = report.partition("**Unmatched Entries**\n")[2].split("\n")
    assert not [line for line in unknown if line and not line.startswith("triple bounce: ")]  # that one is qmail's too
    text = b"\n".join(lines).decode()
    for title, pattern in COUNTED.items():
        counted = re.findall(
            r"^\t(.*) - (\d+) Time\(s\)$", report.partition(title)[2].partition("\n\n")[0], re.MULTILINE
        )
        assert {name: int(count) for name, count in counted} == Counter(re.findall(pattern, text)), title
    assert re.search(r"Success\(250\) - +\d+ Time", report), report
    assert re.search(r"Failure\(550\) - +1 Time", report), report
    assert re.search(r"Deferral\(451\) - +1 Time", report), report
