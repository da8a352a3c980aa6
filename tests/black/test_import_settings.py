"""qm import: for every setting of the other system there is something carried over, or a line that says it is not."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.admin.frompostfix import Postfix
from qm.admin.fromqmail import Qmail as FromQmail
from qm.disk.cdb import Cdb
from tests.harness.dovecot import LMTP, Dovecot
from tests.harness.importing import Qmail, qm
from tests.harness.suite import Suite

Make = Callable[..., Suite]


def main_cf(folder: Path, text: str, master: str = "") -> Path:
    """A configuration of Postfix that nobody runs."""
    folder.mkdir()
    (folder / "main.cf").write_text(f"queue_directory = {folder}/queue\n{text}")
    (folder / "master.cf").write_text(master)
    (folder / "queue").mkdir()
    return folder


@pytest.mark.needs("postconf")
def test_every_parameter_of_postfix(tmp_path: Path) -> None:
    """Each parameter that this Postfix knows, if main.cf has it, is in the report by its line."""
    known = subprocess.run(["postconf", "-d"], capture_output=True, text=True, timeout=60, check=True).stdout
    lines = [line for line in known.splitlines() if not line.startswith(("queue_directory", "virtual_alias_domains"))]
    lines += ["virtual_alias_domains = a.example"]
    folder = main_cf(tmp_path / "postfix", "\n".join(lines) + "\n")
    findings = [str(finding) for finding in Postfix(str(folder), str(tmp_path / "home"), "h.example").findings()]
    said = {finding.split(": ")[0] for finding in findings}
    assert len(lines) > 500
    assert [line for number, line in enumerate(lines, 2) if f"{folder}/main.cf:{number}" not in said] == []


def test_services_of_postfix(tmp_path: Path) -> None:
    """What listens on the network is named, port 25 as carried over if it has no options."""
    master = """\
smtp inet n - y - - smtpd
submission inet n - y - - smtpd
  -o syslog_name=postfix/submission
qmgr unix n - n 300 1 qmgr
"""
    folder = main_cf(tmp_path / "postfix", "", master)
    found = [str(finding) for finding in Postfix(str(folder), str(tmp_path / "home"), "h.example").findings()]
    assert [line for line in found if "master.cf" in line] == [
        f"{folder}/master.cf:1: qm-smtpd is at port 25",
        f"{folder}/master.cf:2: NOT CARRIED OVER: see services: submission smtpd -o syslog_name=postfix/submission",
    ]


def test_a_list_that_can_be_read_in_part(tmp_path: Path) -> None:
    """A table without a text, or a file that is not there, hides nothing of what stands beside it."""
    folder = tmp_path / "postfix"
    text = """\
mydestination = a.example, regexp:/nowhere, b.example
relay_domains = c.example /nowhere/list d.example
virtual_alias_maps = hash:{folder}/nowhere, hash:{folder}/virtual
virtual_alias_domains = v.example
"""
    main_cf(folder, text.format(folder=folder))
    (folder / "virtual").write_text("v.example x\nann@v.example ann@a.example\nbob@a.example ann\n")
    for name in ("control", "alias"):
        (tmp_path / "home" / name).mkdir(parents=True)
    findings = list(Postfix(str(folder), str(tmp_path / "home"), "h.example").findings())
    for finding in findings:
        for action in finding.actions:
            action.do()
    control = {path.name: path.read_text().split() for path in (tmp_path / "home/control").iterdir()}
    assert control["locals"] == ["a.example", "b.example"]
    assert {"a.example", "b.example", "c.example", "d.example", ".d.example", "v.example"} <= set(control["rcpthosts"])
    assert control["virtualdomains"] == ["v.example:alias-virtual"]
    left = [finding.where for finding in findings if not finding.carried]
    assert left == [f"{folder}/main.cf:{number}" for number in (2, 3, 4)]


CONTROLS = (  # of qmail-control(5), and of the patches that most have
    "badmailfrom", "bouncefrom", "bouncehost", "concurrencylocal", "concurrencyremote", "databytes", "defaultdomain",
    "defaulthost", "doublebouncehost", "doublebounceto", "envnoathost", "helohost", "idhost", "localiphost", "locals",
    "me", "morercpthosts", "percenthack", "plusdomain", "qmqpservers", "queuelifetime", "rcpthosts", "smtpgreeting",
    "smtproutes", "timeoutconnect", "timeoutremote", "timeoutsmtpd", "virtualdomains", "defaultdelivery",
    "concurrencyincoming", "badmailto", "badhelo", "spfbehavior", "dh2048.pem", "servercert.pem", "tlsclients",
)  # fmt: skip


def test_everything_of_qmail(tmp_path: Path) -> None:
    """Each file of control/, users/ and alias/, and the rules of tcpserver wherever they are, is in the report."""
    qmail, etc = Qmail(tmp_path / "qmail"), tmp_path / "etc"
    etc.mkdir()
    home = tmp_path / "home"
    (home / "control").mkdir(parents=True)
    files = [f"control/{name}" for name in CONTROLS]
    files += ["users/assign", "users/exclude", "users/poppasswd", "alias/.qmail-root", "alias/Maildir"]
    for name in files:
        (qmail.home / name).write_text("1\n")
    (qmail.home / "users/assign").write_text(".\n")
    (etc / "tcp.smtp").write_text(':allow,RELAYCLIENT=""\n')
    findings = list(FromQmail(str(qmail.home), str(home), str(etc)).findings())
    said = {finding.where.removeprefix(f"{qmail.home}/").partition(":")[0] for finding in findings}
    assert said == {*files, str(etc / "tcp.smtp")}
    carried = {finding.where: finding.carried for finding in findings}
    assert carried[f"{qmail.home}/users/exclude"] and not carried[f"{qmail.home}/users/poppasswd"]
    assert carried[str(etc / "tcp.smtp")]


BOXES = """\
myhostname = box.example
mydestination = box.example
myorigin = box.example
mynetworks = 127.0.0.0/8, 192.0.2.64/26, [2001:db8::]/32
mailbox_transport = lmtp:unix:{socket}
virtual_mailbox_domains = virtual.example
virtual_transport = lmtp:unix:{socket}
virtual_mailbox_maps = hash:{folder}/mailboxes
virtual_alias_maps = hash:{folder}/virtual
alias_maps = hash:{folder}/aliases
"""


@pytest.fixture
def dovecot(open_folder: Path) -> Iterator[Dovecot]:
    made = Dovecot(open_folder / "dovecot", {"ann": "{PLAIN}x", "bob": "{PLAIN}x"}, LMTP)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.needs_root
@pytest.mark.needs("dovecot", "/usr/lib/dovecot/lmtp")
def test_mailboxes_behind_lmtp(make_suite: Make, dovecot: Dovecot, open_folder: Path) -> None:
    """Where Postfix had the mailboxes at an LMTP server qm has them there, too, and aliases come first as before."""
    suite = make_suite(open_folder)
    folder = open_folder / "postfix"
    main_cf(folder, BOXES.format(socket=dovecot.sockets / "lmtp", folder=folder))
    (folder / "aliases").write_text("postmaster: root\nroot: ann\n")
    (folder / "virtual").write_text("info@virtual.example bob@box.example, ann@virtual.example\n")
    (suite.home / "control/me").unlink()
    (suite.home / "tcp.smtp").write_text(":allow\n")
    done = qm(suite, "import", "postfix", str(folder), "--config")
    assert (done.returncode, done.stderr) == (1, "")
    left = [line for line in done.stdout.splitlines() if "NOT CARRIED OVER" in line]
    assert [line.partition("main.cf:")[2].partition(":")[0] for line in left] == ["5", "9"], left
    assert "box.example" not in (suite.home / "control/locals").read_text()
    rules = Cdb(str(suite.home / "tcp.smtp.cdb"))
    rules.refresh()
    assert rules.lookup(b"192.0.2.127") == b"+RELAYCLIENT=\0"
    suite.start()
    suite.send(["ann@box.example", "bob@virtual.example"], b"Subject: direct\r\n\r\n")
    suite.send("postmaster@box.example", b"Subject: alias\r\n\r\n")
    suite.send("info@virtual.example", b"Subject: info\r\n\r\n")

    def subjects(name: str) -> list[bytes]:
        texts = dovecot.messages(name)
        return sorted(text.split(b"Subject: ")[1].split(b"\n")[0].strip() for text in texts)

    suite.wait_for(lambda: subjects("ann") == [b"alias", b"direct", b"info"], "ann's mail")
    suite.wait_for(lambda: subjects("bob") == [b"direct", b"info"], "bob's mail")
    again = qm(suite, "import", "postfix", str(folder), "--config")
    assert not [line for line in again.stdout.splitlines() if line.startswith("    ")], "nothing is done twice"


def test_a_domain_that_is_local_here(make_suite: Make, open_folder: Path) -> None:
    """A domain that Postfix sends on and that is in locals here is named: what is there is not taken out."""
    suite, folder = make_suite(open_folder), open_folder / "postfix"
    (suite.home / "control/me").unlink()
    main_cf(folder, f"mydestination = test.example, on.example\ntransport_maps = hash:{folder}/transport\n")
    (folder / "transport").write_text("test.example lmtp:unix:/run/lmtp\non.example smtp:[192.0.2.1]\n")
    done = qm(suite, "import", "postfix", str(folder), "--config")
    left = [line for line in done.stdout.splitlines() if "NOT CARRIED OVER" in line]
    assert left == [
        f"{folder}/main.cf:2: NOT CARRIED OVER: mydestination: test.example: control/locals has it; take it out there,"
        " or its mail stays here"
    ]
    assert "on.example" not in (suite.home / "control/locals").read_text()
    assert {"test.example", "on.example"} <= set((suite.home / "control/rcpthosts").read_text().split())
    assert (suite.home / "control/lmtproutes").read_text() == "test.example:/run/lmtp\n"
    assert os.path.exists(suite.home / "control/smtproutes")
