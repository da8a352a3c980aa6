"""Submission under TLS for clients that others wrote, with every mechanism that they have.

swaks has a file of its own.
"""

import smtplib
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from tests.harness.logins import NAME, SECRET, Everybody, everybody_logs_in, scram_login
from tests.harness.suite import DOMAIN, HOST, trusting

ANN = f"{NAME}@{DOMAIN}"
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"
WAYS = [pytest.param("submit", id="587"), pytest.param("submits", id="465")]


@pytest.fixture(scope="module")
def everybody() -> Iterator[Everybody]:
    """One suite for all."""
    with everybody_logs_in() as made:
        yield made


@pytest.fixture
def arrives(everybody: Everybody) -> Iterator[None]:
    """One message must arrive, and no more."""
    everybody.clear()
    yield
    everybody.suite.wait_for_mail()
    everybody.suite.wait_until_idle()
    assert len(everybody.suite.mail()) == 1


def _curl(everybody: Everybody, service: str, *options: str) -> int:
    url = f"{'smtps' if service == 'submits' else 'smtp'}://{everybody.address(service)}/client.example"
    words = ["curl", "-sS", "-k", "--ssl-reqd", "--mail-from", ANN, "--mail-rcpt", ANN, "-T", "-"]
    return everybody.run(*words, url, *options, input=MESSAGE).returncode


@pytest.mark.needs("curl")
@pytest.mark.usefixtures("arrives")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("initial", [[], ["--sasl-ir"]], ids=["asked", "at-once"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "*"])
def test_curl(everybody: Everybody, service: str, mechanism: str, initial: list[str]) -> None:
    """curl with each mechanism, and with one of its choice; a wrong password is told so."""
    for secret, code in ((SECRET, 0), ("guess", 67)):
        words = ["--login-options", f"AUTH={mechanism}", "-u", f"{NAME}:{secret}"]
        assert _curl(everybody, service, *words, *initial) == code


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("mechanism", ["DIGEST-MD5", "NTLM", "GSSAPI", "SCRAM-SHA-1", "XOAUTH2"])
def test_curl_without_a_mechanism(everybody: Everybody, service: str, mechanism: str) -> None:
    """curl does not log in by what is not offered."""
    everybody.clear()
    words = ["--login-options", f"AUTH={mechanism}", "-u", f"{NAME}:{SECRET}"]
    assert _curl(everybody, service, *words) == 67
    assert everybody.suite.mail() == []


@pytest.mark.needs("curl")
@pytest.mark.usefixtures("arrives")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("initial", [[], ["--sasl-ir"]], ids=["asked", "at-once"])
def test_curl_with_a_token(everybody: Everybody, service: str, initial: list[str]) -> None:
    """curl with a token: a good one, an old one, somebody else's, none."""
    tokens = {everybody.token(): 0, everybody.token(lasts_s=-300): 67, everybody.token("bob"): 67, "nonsense": 67}
    for token, code in tokens.items():
        words = ["-u", NAME, "--login-options", "AUTH=OAUTHBEARER", "--oauth2-bearer", token]
        assert _curl(everybody, service, *words, *initial) == code


@pytest.mark.needs("curl")
@pytest.mark.usefixtures("arrives")
@pytest.mark.parametrize("service", WAYS)
def test_curl_with_a_certificate(everybody: Everybody, service: str) -> None:
    """curl by EXTERNAL: with ann's certificate as ann and as nobody else; without one there is no EXTERNAL."""
    certified = ["--cert", str(everybody.certificate)]
    for who, more, code in ((NAME, certified, 0), ("bob", certified, 67), (NAME, [], 67)):
        assert _curl(everybody, service, "--login-options", "AUTH=EXTERNAL", "-u", f"{who}:", *more) == code, (
            who,
            more,
        )


def _msmtp(everybody: Everybody, service: str, method: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    words = ["msmtp", "--host=localhost", f"--port={everybody.suite.port(service)}", f"--auth={method}", "--tls=on"]
    words += [f"--tls-starttls={'on' if service == 'submit' else 'off'}", f"--tls-trust-file={everybody.roots}"]
    return everybody.run(*words, f"--user={NAME}", f"--from={ANN}", *more, ANN, input=MESSAGE)


@pytest.mark.needs("msmtp")
@pytest.mark.usefixtures("arrives")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["on", "plain", "login", "cram-md5", "scram-sha-256", "oauthbearer", "external"])
def test_msmtp(everybody: Everybody, service: str, method: str) -> None:
    """msmtp with each method ("on" is its choice); and with a wrong password, a bad token, no certificate."""
    right = [f"--passwordeval=echo '{everybody.token() if method == 'oauthbearer' else SECRET}'"]
    wrong = ["--passwordeval=echo guess"]
    if method == "external":
        right = [f"--tls-cert-file={everybody.certificate}", f"--tls-key-file={everybody.certificate}"]
        wrong = []
    refused = _msmtp(everybody, service, method, *wrong)
    assert refused.returncode == (69 if method == "external" else 77), refused.stderr
    done = _msmtp(everybody, service, method, *right)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("msmtp")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["scram-sha-1", "digest-md5", "ntlm", "gssapi", "xoauth2"])
def test_msmtp_without_a_method(everybody: Everybody, service: str, method: str) -> None:
    """msmtp knows the method, finds it not offered, says so, and sends nothing."""
    everybody.clear()
    done = _msmtp(everybody, service, method, f"--passwordeval=echo '{SECRET}'")
    assert done.returncode == 69 and b"the server does not support authentication method" in done.stderr, done.stderr
    assert everybody.suite.mail() == []


@pytest.mark.needs("gsasl")
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
def test_gsasl(everybody: Everybody, mechanism: str) -> None:
    """GNU SASL's client, which binds the channel by tls-unique, of TLS 1.2; it does nothing else if it could."""
    words = ["gsasl", "--smtp", f"--connect=localhost:{everybody.suite.port('submit')}", f"--mechanism={mechanism}"]
    words += [f"--x509-ca-file={everybody.roots}", f"--authentication-id={NAME}", "--authorization-id="]
    words += ["--priority=NORMAL:-VERS-TLS1.3"]
    words += [] if mechanism.endswith("-PLUS") else ["--no-cb"]
    for secret, code in ((SECRET, 0), ("guess", 1)):
        done = everybody.run(*words, f"--password={secret}")
        assert done.returncode == code, (done.stdout, done.stderr)
    everybody.suite.wait_for_log(f"login name={NAME} method={mechanism} from={HOST} code=235")


@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("binding", ["", "tls-server-end-point"])
def test_scramp(everybody: Everybody, service: str, version: ssl.TLSVersion, binding: str) -> None:
    """scramp's SCRAM: channels are bound to the certificate, and to no other."""
    for secret, data, wanted in ((SECRET, None, b"235"), ("guess", None, b"535"), (SECRET, b"another", b"535")):
        if data and not binding:
            continue
        context = trusting()
        context.maximum_version = version
        port = everybody.suite.port(service)
        implicit = service == "submits"
        client = smtplib.SMTP_SSL(HOST, port, context=context) if implicit else smtplib.SMTP(HOST, port, timeout=30)
        with client:
            if not implicit:
                client.starttls(context=context)

            def ask(line: str, client: smtplib.SMTP = client) -> bytes:
                code, text = client.docmd(line)
                return b"%d %b" % (code, text)

            assert isinstance(client.sock, ssl.SSLSocket)
            assert scram_login(ask, b"334 ", client.sock, secret, binding, data).startswith(wanted)
