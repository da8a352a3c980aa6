"""swaks under TLS: every type of AUTH that it has, at ports 25, 587 and 465.

Debian's swaks has DIGEST-MD5 only with libauthen-sasl-perl, NTLM with libauthen-ntlm-perl: without them it would refuse
by itself, and show nothing of us.
"""

import re
import subprocess
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from tests.harness.logins import NAME, SECRET, Everybody, everybody_logs_in
from tests.harness.suite import DOMAIN, HOST, Suite

ANN: Final = f"{NAME}@{DOMAIN}"
OFFERED: Final = ("PLAIN", "LOGIN", "CRAM-MD5")
NOT_OFFERED: Final = ("DIGEST-MD5", "CRAM-SHA1", "NTLM", "SPA", "MSN")
NO_AUTH: Final = 28  # swaks(1): there was no login
NOT_THERE: Final = b"*** Auth not attempted, requested type not available"


class Way(NamedTuple):
    service: str
    how: str
    login_needed: bool = True


WAYS: Final = [
    pytest.param(Way("smtp", "--tls", login_needed=False), id="25"),
    pytest.param(Way("submit", "--tls"), id="587"),
    pytest.param(Way("submits", "--tlsc"), id="465"),
]


def _users_at_25(suite: Suite) -> None:
    suite.service("smtp", f"tcpserver -H -R {HOST} 0 qm-smtpd {DOMAIN} checkpassword true")


@pytest.fixture(scope="module")
def everybody() -> Iterator[Everybody]:
    """One suite for all, where users may log in at port 25 too, as in the guide."""
    with everybody_logs_in(_users_at_25) as made:
        yield made


def _swaks(everybody: Everybody, way: Way, *words: str) -> subprocess.CompletedProcess[bytes]:
    everybody.clear()
    common = ["--server", HOST, "--port", str(everybody.suite.port(way.service)), "--from", ANN, "--to", ANN]
    return everybody.run("swaks", way.how, *common, "--helo", "client.example", *words)


def _login(kind: str, secret: str = SECRET) -> list[str]:
    return ["--auth", *([kind] if kind else []), "--auth-user", NAME, "--auth-password", secret]


@pytest.mark.needs("swaks")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*OFFERED, ",".join([*NOT_OFFERED, "PLAIN"]), ""], ids=lambda kind: kind[-8:] or "any")
def test_a_type_that_is_offered(everybody: Everybody, way: Way, kind: str) -> None:
    """Each type logs in, also the last of a list and one of swaks's choice; with a wrong password nothing is sent."""
    refused = _swaks(everybody, way, *_login(kind, "guess"))
    assert refused.returncode == NO_AUTH and b"<~* 535 5.7.8" in refused.stdout, refused.stdout
    assert b"MAIL FROM" not in refused.stdout
    done = _swaks(everybody, way, *_login(kind))
    assert done.returncode == 0 and b"=== TLS started with cipher TLSv1.3:" in done.stdout, done.stdout
    [mail] = everybody.suite.wait_for_mail()
    assert re.search(rb"  by test.example with ESMTPSA \(TLSv1\.3 ", mail), mail
    method = kind.rpartition(",")[2] or "CRAM-MD5"
    assert re.findall(rb"^ ~> AUTH (\S+)", done.stdout, re.MULTILINE) == [method.encode()]


@pytest.mark.needs("swaks")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NOT_OFFERED)
def test_a_type_that_is_not_offered(everybody: Everybody, way: Way, kind: str) -> None:
    """swaks knows the type and does not find it in our reply to EHLO: it sends no AUTH and no mail."""
    support = everybody.run("swaks", "--support").stdout
    name = "NTLM" if kind in ("SPA", "MSN") else kind
    assert f"AUTH {name} supported".encode() in support, support
    done = _swaks(everybody, way, *_login(kind))
    assert done.returncode == NO_AUTH and NOT_THERE in done.stderr, done
    assert b" ~> AUTH" not in done.stdout and b"MAIL FROM" not in done.stdout
    assert everybody.suite.mail() == []


@pytest.mark.needs("swaks")
@pytest.mark.parametrize("way", WAYS)
def test_who_need_not_log_in(everybody: Everybody, way: Way) -> None:
    """With --auth-optional a type that is not offered is no hindrance: mail for us is taken at 25, and nowhere else."""
    done = _swaks(everybody, way, "--auth-optional", "NTLM", "--auth-user", NAME, "--auth-password", SECRET)
    if way.login_needed:
        assert done.returncode == 23 and b"<~* 530 5.7.0" in done.stdout, done.stdout
        return
    assert done.returncode == 0, done.stdout
    [mail] = everybody.suite.wait_for_mail()
    assert b"  by test.example with ESMTPS (TLSv1.3 " in mail
