"""TLS from the first byte, with the whole suite: certificates by name, changed and broken files, workers that die."""

import os
import poplib
import shutil
import signal
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from qm.disk import selfsigned
from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S

ANN = f"ann@{DOMAIN}"
MESSAGE = b"Subject: under TLS\r\n\r\n" + b"x" * 70 + b"\r\n"


def _pop3s(suite: Suite, user: str = "ann") -> poplib.POP3_SSL:
    client = poplib.POP3_SSL(HOST, suite.port("pop3s"), timeout=LIMIT_S, context=trusting())
    client.user(user)
    client.pass_("secret")
    return client


def _name(suite: Suite, name: str | None) -> str:
    """Whose certificate is shown to who calls us by *name*."""
    with suite.under_tls("pop3s", name) as client:
        der = client.getpeercert(binary_form=True)
        assert der is not None
        return str(x509.load_der_x509_certificate(der).subject.rdns[0].rfc4514_string()).removeprefix("CN=")


def _certificate(suite: Suite, path: str, name: str, mode: int = 0o600) -> Path:
    """Put one for *name* into control/."""
    target = suite.home / "control" / path
    target.parent.mkdir(exist_ok=True)
    new = suite.home / "new.pem"
    new.write_bytes(selfsigned.pem([name]))
    new.chmod(mode)
    shutil.chown(new, target.parent.stat().st_uid)
    new.rename(target)
    return target


def test_a_message_in_and_out(suite: Suite) -> None:
    """Mail of several megabytes goes in by one service and comes out by the other, byte for byte."""
    body = b"Subject: large\r\n\r\n" + b"".join(b"%078d\r\n" % number for number in range(50_000))
    with smtplib.SMTP_SSL(HOST, suite.port("submits"), timeout=LIMIT_S, context=trusting()) as smtp:
        smtp.login("ann", "secret")
        smtp.sendmail(ANN, [ANN], body)
    suite.wait_for_mail()
    client = _pop3s(suite)
    lines = client.retr(1)[1]
    assert client.quit().startswith(b"+OK")
    assert b"\r\n".join(lines[lines.index(b"") :]) == body.partition(b"\r\n")[2].removesuffix(b"\r\n")


def test_cold(make_suite: Callable[[Path], Suite], open_folder: Path) -> None:
    """A qm-tls that execs the next program hands it the same plain stream."""
    suite = make_suite(open_folder)
    suite.env["QMCOLD"] = "1"
    suite.start()
    with smtplib.SMTP_SSL(HOST, suite.port("submits"), timeout=LIMIT_S, context=trusting()) as smtp:
        smtp.login("ann", "secret")
        smtp.sendmail(ANN, [ANN], MESSAGE)
    suite.wait_for_mail()
    client = _pop3s(suite)
    assert b"x" * 70 in client.retr(1)[1]
    assert client.quit().startswith(b"+OK")


def test_a_name_has_its_certificate(suite: Suite) -> None:
    """A file of the name is shown, then one for all names of its domain, then the default; new files count at once."""
    _certificate(suite, "servercerts/mx.one.test.pem", "mx.one.test")
    _certificate(suite, "servercerts/_.two.test.pem", "*.two.test")
    suite.wait_for(lambda: _name(suite, "mx.one.test") == "mx.one.test", "the new certificate")
    assert _name(suite, "MX.One.Test") == "mx.one.test"
    assert _name(suite, "any.two.test") == "*.two.test"
    assert _name(suite, "deep.any.two.test") == DOMAIN
    assert _name(suite, "two.test") == DOMAIN
    assert _name(suite, None) == DOMAIN


def test_a_changed_certificate_drops_no_session(suite: Suite) -> None:
    """Who comes after the change sees the new one; who was there goes on."""
    before = _pop3s(suite)
    _certificate(suite, "servercert.pem", "new.test")
    suite.wait_for(lambda: _name(suite, None) == "new.test", "the new certificate")
    assert before.stat() == (0, 0)
    before.quit()


@pytest.mark.alerts(r"servercert\.pem: .*; the last good one goes on")
@pytest.mark.parametrize("how", ["others may read", "no key", "no PEM", "another's key", "empty"])
def test_a_broken_certificate_changes_nothing(suite: Suite, how: str) -> None:
    """The log has an alert that names the file, and the last good one goes on."""
    path = suite.home / "control/servercert.pem"
    if how == "others may read":
        _certificate(suite, "servercert.pem", "new.test", 0o640)
    else:
        certificate, mark, key = selfsigned.pem(["new.test"]).partition(b"-----BEGIN PRIVATE")
        other = selfsigned.pem(["other.test"]).partition(mark)[2]
        texts = {"no key": certificate, "no PEM": b"\xff\0", "another's key": certificate + mark + other, "empty": b""}
        path.write_bytes(texts[how])
        assert key
    suite.wait_for(lambda: _name(suite, None) == DOMAIN and "the last good one goes on" in suite.log(), "the alert")
    assert _name(suite, None) == DOMAIN


def test_without_a_certificate_all_else_goes_on(suite: Suite) -> None:
    """Services with TLS end connections, and say why; those without serve."""
    os.unlink(suite.home / "control/servercert.pem")
    suite.wait_for(lambda: _refused(suite), "the end of TLS")
    suite.wait_for_log(r"there is no certificate \(control/servercert\.pem\)")
    assert suite.pop3().quit().startswith(b"+OK")


def _refused(suite: Suite) -> bool:
    try:
        suite.under_tls("pop3s").close()
    except (ConnectionError, ssl.SSLError):
        return True
    return False


@pytest.mark.needs_root
def test_a_worker_that_dies_takes_its_session_only(suite: Suite) -> None:
    """The client of a killed worker sees the end; another's session and those to come go on."""
    suite.add_user("bob", "secret")
    first, second = _pop3s(suite), _pop3s(suite, "bob")
    (uid,) = (line.split(":")[1] for line in (suite.home / "control/roles").read_text().splitlines() if "mailt" in line)
    workers = [pid for pid in suite.pids() if os.stat(f"/proc/{pid}").st_uid in (int(uid), 0) and _is(pid, uid)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    outcomes = [_goes_on(client) for client in (first, second)]
    assert sorted(outcomes) == [False, True]
    suite.wait_for_log("qm-pop3d: .* how=closed")  # who has it open keeps others out of a mailbox
    _pop3s(suite).quit()


def _is(pid: int, uid: str) -> bool:
    return f"Uid:\t{uid}\t" in Path(f"/proc/{pid}/status").read_text()


def _goes_on(client: poplib.POP3_SSL) -> bool:
    try:
        return client.stat() == (0, 0) and client.quit().startswith(b"+OK")
    except (OSError, poplib.error_proto):
        client.close()
        return False
