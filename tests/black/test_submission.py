"""Submission as users meet it: their clients, their logins, and what becomes of their mail."""

import base64
import re
import smtplib
import subprocess
from collections.abc import Callable

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite

ANN = f"ann@{DOMAIN}"
Make = Callable[[], Suite]


@pytest.fixture
def submit(make_suite: Make) -> Suite:
    """A suite that takes mail of its users at the service "submit"; in clear, so that what is tested is the login."""
    suite = make_suite()
    suite.control("authclear", "1\n")
    suite.control("authfaildelay", "0\n")
    suite.control("authmechanisms", "PLAIN\nLOGIN\nCRAM-MD5\nSCRAM-SHA-256\n")
    suite.service("submit", f"SUBMISSION= tcpserver -H -R {HOST} 0 qm-smtpd")
    suite.add_user("bob", "secret two", apop=True)
    return suite.start()


def client(suite: Suite, service: str = "submit") -> smtplib.SMTP:
    return smtplib.SMTP(HOST, suite.port(service), local_hostname="client.example", timeout=30)


def run(suite: Suite, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(suite.home), "LC_ALL": "C"}
    return subprocess.run(argv, input=input, env=env, cwd="/", capture_output=True, timeout=60, check=False)


def test_smtplib(submit: Suite) -> None:
    """Python's client logs in, and its message arrives, completed, with ESMTPA in Received."""
    with client(submit) as smtp:
        smtp.login("bob", "secret two")
        smtp.sendmail(f"bob@{DOMAIN}", ["ann"], b"Subject: hello\r\nTo: ann\r\nBcc: x@y.example\r\n\r\nbody\r\n")
    [mail] = submit.wait_for_mail()
    header, _, body = mail.partition(b"\n\n")
    assert body == b"body\n"
    assert b"  by test.example with ESMTPA\n" in header
    for field in (
        rb"Date: .* -0000",
        rb"Message-ID: <\S+@test\.example>",
        rb"From: bob@test.example",
        rb"To: ann@test.example",
    ):
        assert re.search(rb"^" + field + rb"$", header, re.MULTILINE), header
    assert b"Bcc" not in header
    submit.wait_for_log("login name=bob method=CRAM-MD5 from=127.0.0.1 code=235 why=ok")
    assert "secret two" not in submit.log()


@pytest.mark.needs("swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_swaks(submit: Suite, mechanism: str) -> None:
    """swaks with each mechanism that it has and we offer: in with the right password, out with a wrong one."""
    common = ["swaks", "--server", HOST, "--port", str(submit.port("submit")), "--from", f"bob@{DOMAIN}", "--to", ANN]
    for password, code in (("secret two", 0), ("guess", 28)):
        done = run(submit, *common, "--auth", mechanism, "--auth-user", "bob", "--auth-password", password)
        assert done.returncode == code, done.stdout.decode()
    submit.wait_for_mail()
    submit.wait_for_log(f"login name=bob method={mechanism} from={HOST} code=535 why=wrong_name_or_password")


@pytest.mark.needs("msmtp")
@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5", "scram-sha-256"])
def test_msmtp(submit: Suite, mechanism: str) -> None:
    """msmtp with each mechanism that it has and we offer."""
    common = ["msmtp", f"--host={HOST}", f"--port={submit.port('submit')}", f"--auth={mechanism}", "--tls=off"]
    message = b"Subject: hello\n\nbody\n"
    for password, code in (("secret two", 0), ("guess", 77)):
        words = [f"--from=bob@{DOMAIN}", "--user=bob", f"--passwordeval=echo {password}", ANN]
        done = run(submit, *common, *words, input=message)
        assert done.returncode == code, done.stderr.decode()
    submit.wait_for_mail()


@pytest.mark.needs("curl")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_curl(submit: Suite, mechanism: str) -> None:
    """curl with each mechanism that it has and we offer."""
    url = f"smtp://{HOST}:{submit.port('submit')}/client.example"
    words = ["--mail-from", f"bob@{DOMAIN}", "--mail-rcpt", ANN, "--login-options", f"AUTH={mechanism}", "-T", "-"]
    for password, code in (("secret two", 0), ("guess", 67)):
        done = run(submit, "curl", "-sS", url, "-u", f"bob:{password}", *words, input=b"Subject: hello\r\n\r\nbody\r\n")
        assert done.returncode == code, done.stderr.decode()
    submit.wait_for_mail()


def test_whose_addresses(submit: Suite) -> None:
    """A user may write from the addresses that are delivered to him and from those of authsenders, and no others."""
    submit.control("authsenders", f"ann:sales@{DOMAIN}\n")
    submit.signal(1)
    with client(submit) as smtp:
        smtp.login("ann", "secret")
        for sender, code in (
            (ANN, 250),
            (f"ANN@{DOMAIN}", 250),
            (f"bob@{DOMAIN}", 553),
            ("ann@elsewhere.example", 553),
        ):
            assert smtp.mail(sender)[0] == code, sender
        submit.wait_for(lambda: smtp.mail(f"sales@{DOMAIN}")[0] == 250, "authsenders is read")
        smtp.rcpt(ANN)
        assert smtp.data(b"From: bob@test.example\r\n\r\nx\r\n")[0] == 550
        smtp.mail(ANN)
        smtp.rcpt(ANN)
        assert smtp.data(b"From: Ann <ann@test.example>, sales\r\n\r\nx\r\n")[0] == 250


def test_a_login_name_cannot_write_a_header(submit: Suite) -> None:
    """Nothing that a client logs in with gets into a message or makes a log line of its own."""
    evil = b"\0ann\r\nX-Evil: 1\nqm-smtpd: 1 login name=root code=235\0secret"
    with client(submit) as smtp:
        assert smtp.docmd("AUTH PLAIN " + base64.b64encode(evil).decode())[0] == 535
    submit.wait_for_log("login name=.* code=535")
    assert not re.search(r"^qm-smtpd: 1 login", submit.log(), re.MULTILINE)


def test_the_guides_words(make_suite: Make) -> None:
    """``qm-smtpd domain.name checkpassword true`` takes logins by userd, in clear, and lets them relay."""
    suite = make_suite()
    suite.service("smtp", f"tcpserver -H -R {HOST} 0 qm-smtpd {DOMAIN} checkpassword true")
    suite.start()
    with client(suite, "smtp") as smtp:
        assert smtp.mail("x@elsewhere.example")[0] == 250
        assert smtp.rcpt("y@elsewhere.example")[0] == 553
        smtp.rset()
        smtp.login("ann", "secret")
        assert smtp.mail("x@elsewhere.example")[0] == 250
        assert smtp.rcpt("y@elsewhere.example")[0] == 250


def test_a_checkpassword_of_another_maker(make_suite: Make) -> None:
    """A checkpassword that is not ours is run for a login: name and password on descriptor 3, no connection."""
    suite = make_suite()
    script = suite.home / "check"
    script.write_text(
        "#!/bin/sh\n"
        'test "$(readlink /proc/self/fd/0)" = /dev/null || exit 5\n'
        "given=$(tr '\\000' : <&3)\n"
        'test "$given" = sam:word:: && exec "$@"\n'
        'case "$given" in *broken*) exit 111;; esac\n'
        "exit 1\n"
    )
    script.chmod(0o755)
    suite.service("smtp", f"tcpserver -H -R {HOST} 0 qm-smtpd {DOMAIN} ./check true")
    suite.start()
    for name, password, code in (("sam", "word", 235), ("sam", "x", 535), ("broken", "x", 454)):
        with client(suite, "smtp") as smtp:
            text = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
            assert smtp.docmd("AUTH PLAIN " + text)[0] == code
            smtp.mail("x@elsewhere.example")
            assert smtp.rcpt("y@elsewhere.example")[0] == (250 if code == 235 else 553)


def test_guesses(submit: Suite) -> None:
    """A session of guesses ends after maxerrors, and at authfailaccount none is looked at any more, in any session."""
    submit.control("authfailaccount", "30\n")
    submit.restart()
    for session in range(2):
        guesses = [base64.b64encode(f"\0ann\0guess {session} {number}".encode()) for number in range(40)]
        with client(submit) as smtp:
            assert smtp.sock is not None
            smtp.sock.sendall(b"".join(b"AUTH PLAIN " + guess + b"\r\n" for guess in guesses) + b"QUIT\r\n")
            said = b""
            while data := smtp.sock.recv(65536):
                said += data
        codes = [int(line[:3]) for line in said.splitlines()]
        assert codes == ([535] * 20 + [421] if session == 0 else [535] * 10 + [454] * 30 + [221])
    submit.wait_for_log("login name=ann method=PLAIN from=127.0.0.1 code=454 why=.*authfailaccount")
