"""Clients that others wrote, on the whole suite: SMTP clients put mail in, POP3 clients take it out.

tests/black/test_pop3_clients.py has the POP3 clients alone, with a mailbox of odd messages; here mail goes all the way.
"""

import os
import poplib
import re
import signal
import smtplib
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.suite import DOMAIN, HOST, Suite

ANN = f"ann@{DOMAIN}"
BOB = "bob@elsewhere.example"
DOVECOT = "/usr/lib/dovecot/pop3"  # needs("pop3") looks there too
ROOT = os.geteuid() == 0
BODY = b"first line\r\n.\r\n..dots\r\n" + "한글".encode() + b"\r\n" + b"x" * 998 + b"\r\nlast line\r\n"


def _run(suite: Suite, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(suite.home), "LC_ALL": "C"}
    return subprocess.run(argv, input=input, env=env, cwd="/", capture_output=True, timeout=60, check=False)


def _fetched(suite: Suite) -> list[bytes]:
    """What poplib retrieves, and removes."""
    client = suite.pop3()
    texts = []
    for number in range(1, client.stat()[0] + 1):
        texts.append(b"".join(line + b"\r\n" for line in client.retr(number)[1]))
        client.dele(number)
    client.quit()
    return texts


def test_smtplib_and_poplib(suite: Suite) -> None:
    """Python's own clients: several recipients, one of them unknown; 8-bit text, an empty body, a wrong password."""
    suite.control("authfaildelay", "0\n")
    suite.add_user("carol", "secret two")
    with suite.smtp() as client:
        client.ehlo()
        assert client.has_extn("pipelining") and client.esmtp_features["size"] == "52428800"
        refused = client.sendmail(BOB, [ANN, f"nobody@{DOMAIN}", f"carol@{DOMAIN}"], b"Subject: three\r\n\r\n" + BODY)
        assert refused.keys() == {f"nobody@{DOMAIN}"} and refused[f"nobody@{DOMAIN}"][0] == 550
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(BOB, ["x@other.example"], b"Subject: relay\r\n\r\nx\r\n")
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "블@elsewhere.example", ANN, "안녕"
        client.send_message(message)
        assert client.verify(ANN)[0] == 252
    suite.wait_for_mail(2)
    suite.wait_until_idle()
    client = poplib.POP3(HOST, suite.pop3_port)
    client.user("carol")
    with pytest.raises(poplib.error_proto) as refusal:
        client.pass_("secret")
    assert b"[AUTH]" in refusal.value.args[0]
    client.user("carol")
    client.pass_("secret two")
    assert client.utf8().startswith(b"+OK") and client.stat()[0] == 1
    assert b"\r\n".join(client.retr(1)[1]).endswith(BODY.removesuffix(b"\r\n"))
    client.quit()
    three, utf8 = sorted(_fetched(suite), key=lambda text: b"three" not in text)
    assert three.endswith(b"\r\n\r\n" + BODY)
    assert b"with UTF8SMTP\r\n" in utf8 and "Subject: 안녕\r\n".encode() in utf8
    assert _fetched(suite) == []


@pytest.mark.needs("swaks")
def test_swaks(suite: Suite) -> None:
    """swaks, with pipelining and without, delivers; it is told of an unknown user and of relaying."""
    server = ["swaks", "--server", HOST, "--port", str(suite.smtp_port), "--from", BOB, "--helo", "client.example"]
    for extra in ([], ["--pipeline"], ["--protocol", "SMTP"]):
        data = "@-" if not extra else "Subject: swaks\n\n.one dot\nlast line"
        text = b"Subject: stdin\n\n.one dot\nlast line\n"
        done = _run(suite, *server, "--to", ANN, "--data", data, *extra, input=text)
        assert done.returncode == 0, done.stdout
        assert b" 250 2.0.0 ok " in done.stdout
    for address, reply in ((f"nobody@{DOMAIN}", b"550 5.1.1"), ("x@other.example", b"553 5.7.1")):
        done = _run(suite, *server, "--to", address)
        assert done.returncode == 24 and reply in done.stdout
    suite.wait_for_mail(3)
    texts = _fetched(suite)
    assert sorted(re.findall(rb"with (E?SMTP)\r\n", b"".join(texts))) == [b"ESMTP", b"ESMTP", b"SMTP"]
    assert all(re.search(rb"\r\n\r\n\.one dot\r\nlast line\r\n(\r\n)?\Z", text) for text in texts)


@pytest.mark.needs("curl")
def test_curl(suite: Suite) -> None:
    """curl sends a file, and lists, gets, tops and removes what has come; refusals have its exit codes."""
    suite.control("authfaildelay", "0\n")
    smtp = ["curl", "-sS", f"smtp://{HOST}:{suite.smtp_port}/client.example", "--mail-from", BOB, "-T", "-"]
    assert _run(suite, *smtp, "--mail-rcpt", ANN, input=b"Subject: curl\r\n\r\n" + BODY).returncode == 0
    assert _run(suite, *smtp, "--mail-rcpt", f"nobody@{DOMAIN}", input=b"x\r\n").returncode == 55
    suite.wait_for_mail()
    pop3 = ["curl", "-sS", "--user", "ann:secret", f"pop3://{HOST}:{suite.pop3_port}/"]
    number, size = _run(suite, *pop3).stdout.split()
    text = _run(suite, *pop3[:-1], f"{pop3[-1]}1").stdout
    assert number == b"1" and len(text) == int(size) and text.endswith(b"\r\n\r\n" + BODY)
    assert _run(suite, *pop3, "-X", "TOP 1 1").stdout.endswith(b"Subject: curl\r\n\r\nfirst line\r\n")
    uidl = _run(suite, *pop3, "-X", "UIDL").stdout
    assert uidl == b"1 " + re.sub(r"[,:].*", "", next(suite.maildir().glob("cur/*")).name).encode() + b"\r\n"
    assert _run(suite, "curl", "-sS", "--user", "ann:wrong", pop3[-1]).returncode == 67  # login denied
    assert _run(suite, *pop3[:-1], f"{pop3[-1]}1", "-X", "DELE", "-I").returncode == 0
    assert suite.mail() == []


@pytest.mark.needs("fetchmail")
def test_fetchmail(suite: Suite) -> None:
    """fetchmail takes mail out by POP3, hands it in again by SMTP byte for byte, and removes what it has handed in."""
    suite.add_user("carol", "secret")
    suite.send([ANN], b"Subject: fetchmail\r\n\r\n" + BODY)
    suite.wait_for_mail()
    config = suite.home / "fetchmailrc"
    config.write_text(
        f"poll {HOST} port {suite.pop3_port} proto pop3 user ann pass secret sslproto '' no keep forcecr"
        f" smtphost {HOST}/{suite.smtp_port} smtpname carol@{DOMAIN}\n"
    )
    config.chmod(0o600)
    argv = ["fetchmail", "-f", str(config), "--nosyslog", "--pidfile", str(suite.home / "fetchmail.pid")]
    done = _run(suite, *argv)
    assert done.returncode == 0, (done.stdout, done.stderr)
    (text,) = suite.wait_for_mail(1, "carol")
    assert text.endswith(b"\n\n" + BODY.replace(b"\r\n", b"\n"))
    assert suite.mail() == []
    assert _run(suite, *argv).returncode == 1  # nothing there


@pytest.mark.needs("mpop")
def test_mpop(suite: Suite) -> None:
    """mpop, which pipelines, fetches many messages in one session, each whole, and removes them."""
    for number in range(20):
        suite.send([ANN], b"Subject: %d\r\n\r\n" % number + BODY)
    suite.wait_for_mail(20)
    argv = ["mpop", f"--host={HOST}", f"--port={suite.pop3_port}", "--user=ann", "--passwordeval=echo secret"]
    argv += ["--tls=off", "--auth=user", "--keep=off"]
    argv += [f"--deliver=maildir,{suite.home}/fetched", f"--uidls-file={suite.home}/uidls"]
    assert suite.run("maildirmake", str(suite.home / "fetched")).returncode == 0
    done = _run(suite, *argv)
    assert done.returncode == 0, done.stderr
    texts = [path.read_bytes() for path in suite.home.glob("fetched/new/*")]
    assert len(texts) == 20 and all(text.endswith(b"\n\n" + BODY.replace(b"\r\n", b"\n")) for text in texts)
    assert suite.mail() == []


@pytest.mark.needs("smtp-source")
@pytest.mark.parametrize("options", [["-s", "10"], ["-d", "-s", "3", "-r", "5"], ["-o", "-l", "100000"]], ids="".join)
def test_smtp_source(suite: Suite, options: list[str]) -> None:
    """Postfix's load generator: many sessions at once, kept sessions with many recipients, old SMTP with more text.

    Each message arrives once for each recipient.
    """
    suite.control("rcpthosts", "many.example\n")  # it makes names of its own: ann, 1ann, 2ann ...
    suite.control("virtualdomains", "many.example:ann-many\n")
    suite.dot_qmail("ann", "./Maildir/\n", "-many-default")
    suite.signal(signal.SIGHUP)
    count, copies = 60, 5 if "-r" in options else 1
    argv = ["smtp-source", "-m", str(count), "-f", BOB, "-t", "ann@many.example", *options]
    done = _run(suite, *argv, f"{HOST}:{suite.smtp_port}")
    assert done.returncode == 0, done.stderr
    suite.wait_until_idle(60)
    ids = re.findall(rb"\n  id (\w+)", b"".join(suite.mail()))
    assert len(ids) == count * copies and len(set(ids)) == count


# Dovecot

ODD = [
    b"Subject: empty body\r\n\r\n",
    b"no header at all\r\n",
    b"\r\n\r\n.\r\n..\r\n...\r\n.a\r\n\r\n",
    b"Subject: bytes\r\n\r\n" + bytes(set(range(256)) - {10, 13, 0}) + b"\r\n",
    b"Subject: long\r\n\r\n" + b"y" * 200_000 + b"\r\n",
    b"Subject: lines\r\n\r\n" + b".\r\n" * 20_000,
    "Subject: 한글\r\n\r\n본문\r\n".encode(),
    b"Subject: no end of line at the end\r\n\r\nlast",
]


def _dovecot(suite: Suite, script: bytes) -> bytes:
    """What Dovecot's POP3 server says to *script*, as the mailbox's owner and on the very same Maildir."""
    maildir = suite.maildir()
    owner = maildir.stat()
    config = Path(suite.home) / "dovecot.conf"
    config.write_text(f"mail_location = maildir:{maildir}\nfirst_valid_uid = 1\nssl = no\nlog_path = /dev/stderr\n")
    become = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"] if ROOT else []
    done = subprocess.run(
        [*become, DOVECOT, "-c", str(config)],
        env={"HOME": str(maildir.parent), "USER": "ann", "MAIL": f"maildir:{maildir}", "PATH": "/usr/bin:/bin"},
        cwd=maildir.parent,
        input=script,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith(b"+OK"), done.stderr
    return done.stdout


def _contents(answers: bytes) -> list[bytes]:
    """Multi-line replies without their first lines, which differ."""
    return [reply.partition(b"\r\n")[2] for reply in re.split(rb"(?m)^(?:\+OK|-ERR)", answers)]


@pytest.mark.needs("pop3", "setpriv")
def test_dovecot_serves_the_same_maildir(make_suite: Callable[[Path], Suite], open_folder: Path) -> None:
    """Sizes and contents of what the suite has delivered are the same, byte for byte, from Dovecot and from us.

    They share the Maildir before and after one another, and neither takes from the other what it keeps there.
    """
    suite = make_suite(open_folder).start()
    for text in ODD:
        suite.send(ANN, text)
    envelope = f"F{BOB}\0T{ANN}\0\0".encode()
    for text in (b"Subject: NUL\n\na\0b\n", b"Subject: CR LF\r\n\r\nmixed\n.\r\n\r\n", b"Subject: cut\n\nno end", b""):
        assert suite.queue(text, envelope) == 0
    count = len(ODD) + 4
    suite.wait_for_mail(count)
    numbers = range(1, count + 2)
    commands = [b"STAT", b"LIST", *(b"RETR %d" % n for n in numbers)]
    commands += [b"TOP %d %d" % (n, lines) for n in numbers for lines in (0, 1, 3)]
    script = b"\r\n".join([*commands, b"QUIT", b""])
    answers = []
    for _ in range(2):  # new messages; then those that both have seen
        with Dialogue(suite.pop3_port) as client:
            client.say(b"USER ann\r\nPASS secret\r\nUIDL\r\n" + script)
            ours = client.rest()
        uidl, ours = ours.partition(b"\r\n.\r\n")[::2]
        theirs = _dovecot(suite, script)
        assert ours.partition(b"\r\n")[0] == theirs.partition(b"\r\n")[0]  # STAT
        assert _contents(ours) == _contents(theirs)
        answers.append((re.findall(rb"(?m)^\d+ (\S+)", uidl), ours))
    assert answers[0] == answers[1] and len(answers[0][0]) == count
