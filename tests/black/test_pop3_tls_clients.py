"""POP3 under TLS for clients that others wrote, by STLS and at port 995, with every mechanism that they have."""

import poplib
import ssl
from collections.abc import Iterator

import pytest

from tests.harness.logins import NAME, SECRET, Everybody, everybody_logs_in, scram_login
from tests.harness.suite import DOMAIN, HOST, trusting

TEXT = b"Subject: hello\n\n.dot\nlast line\n"
WAYS = [pytest.param("pop3", id="STLS"), pytest.param("pop3s", id="995")]


@pytest.fixture(scope="module")
def everybody() -> Iterator[Everybody]:
    """One suite for all; each test leaves ann's message where it is."""
    with everybody_logs_in() as made:
        made.suite.send(f"{NAME}@{DOMAIN}", TEXT.replace(b"\n", b"\r\n"))
        made.suite.wait_for_mail()
        yield made


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_curl(everybody: Everybody, service: str, mechanism: str) -> None:
    """curl --ssl-reqd and pop3s://, with and without an initial response; a wrong password is told so."""
    url = f"{service}://{everybody.address(service)}/1"
    words = ["curl", "-sS", "--ssl-reqd", "--cacert", str(everybody.roots), "--login-options", f"AUTH={mechanism}", url]
    words += ["--connect-to", f"::{HOST}:"]
    words[words.index(url)] = url.replace(HOST, "localhost")
    for more in ([], ["--sasl-ir"]):
        done = everybody.run(*words, *more, "-u", f"{NAME}:{SECRET}")
        assert done.stdout.replace(b"\r\n", b"\n").endswith(TEXT), done.stderr
        assert everybody.run(*words, *more, "-u", f"{NAME}:guess").returncode == 67  # login denied


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("initial", [[], ["--sasl-ir"]], ids=["asked", "at-once"])
def test_curl_with_a_token(everybody: Everybody, service: str, initial: list[str]) -> None:
    """curl with a token: a good one, an old one, somebody else's, none."""
    words = ["curl", "-sS", "-k", "--ssl-reqd", f"{service}://{everybody.address(service)}/1", *initial]
    tokens = {everybody.token(): 0, everybody.token(lasts_s=-300): 67, everybody.token("bob"): 67, "nonsense": 67}
    for token, code in tokens.items():
        done = everybody.run(*words, "-u", NAME, "--login-options", "AUTH=OAUTHBEARER", "--oauth2-bearer", token)
        assert done.returncode == code, done.stderr
        assert done.stdout.replace(b"\r\n", b"\n").endswith(TEXT if code == 0 else b"")


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
def test_curl_with_a_certificate(everybody: Everybody, service: str) -> None:
    """curl by EXTERNAL: with ann's certificate as ann and as nobody else; without one there is no EXTERNAL."""
    words = ["curl", "-sS", "-k", "--ssl-reqd", "--login-options", "AUTH=EXTERNAL"]
    words.append(f"{service}://{everybody.address(service)}/1")
    certified = ["--cert", str(everybody.certificate)]
    anothers = ["--cert", str(everybody.strangers_certificate)]  # of an authority that we do not know: no handshake
    for who, more, codes in (
        (NAME, certified, [0]),
        ("bob", certified, [67]),
        (NAME, [], [67]),
        (NAME, anothers, [8, 35, 56]),
    ):
        done = everybody.run(*words, *more, "-u", f"{who}:")
        assert done.returncode in codes, (who, more, done.stderr)


@pytest.mark.needs("mpop")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["user", "plain", "login", "cram-md5", "scram-sha-256", "oauthbearer", "external"])
def test_mpop(everybody: Everybody, service: str, method: str) -> None:
    """mpop with each method; and with a wrong password, a bad token, no certificate."""
    folder = everybody.suite.home
    words = ["mpop", "--host=localhost", f"--port={everybody.suite.port(service)}", f"--auth={method}", "--tls=on"]
    words += [f"--tls-starttls={'on' if service == 'pop3' else 'off'}", f"--tls-trust-file={everybody.roots}"]
    words += [f"--user={NAME}", "--keep=on", f"--deliver=mbox,{folder}/got.{service}.{method}"]
    words += [f"--uidls-file={folder}/uidls.{service}.{method}"]
    right = [f"--passwordeval=echo '{everybody.token() if method == 'oauthbearer' else SECRET}'"]
    wrong = ["--passwordeval=echo guess"]
    if method == "external":
        right = [f"--tls-cert-file={everybody.certificate}", f"--tls-key-file={everybody.certificate}"]
        wrong = []
    assert everybody.run(*words, *wrong).returncode == (69 if method == "external" else 77)  # EX_UNAVAILABLE, EX_NOPERM
    done = everybody.run(*words, *right)
    assert done.returncode == 0, done.stderr
    assert b"last line\n" in (folder / f"got.{service}.{method}").read_bytes()


@pytest.mark.needs("fetchmail")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["password", "cram-md5"])
def test_fetchmail(everybody: Everybody, service: str, method: str) -> None:
    """fetchmail with USER and PASS, and CRAM-MD5, whose server it knows by its root."""
    folder = everybody.suite.home
    config = folder / "fetchmailrc"
    ssl_words = "ssl" if service == "pop3s" else "sslproto 'auto'"
    config.write_text(
        f"poll localhost port {everybody.suite.port(service)} proto pop3 auth {method} user {NAME} pass '{SECRET}'"
        f" {ssl_words} sslcertck sslcertfile {everybody.roots} keep fetchall"
        f" mda 'cat >{folder}/got.{service}.{method}'\n"
    )
    config.chmod(0o600)
    done = everybody.run("fetchmail", "-f", str(config), "--nosyslog", "--pidfile", str(folder / "pid"), "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert b".dot\nlast line\n" in (folder / f"got.{service}.{method}").read_bytes()


@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("binding", ["", "tls-server-end-point", "tls-unique"])
def test_scramp(everybody: Everybody, service: str, version: ssl.TLSVersion, binding: str) -> None:
    """scramp's SCRAM: channels are bound to the certificate, in TLS 1.2 also to the handshake, and to no other."""
    if binding == "tls-unique" and version is ssl.TLSVersion.TLSv1_3:
        return  # RFC 9266 section 3: there is none
    for secret, data, wanted in ((SECRET, None, b"+OK"), ("guess", None, b"-ERR"), (SECRET, b"another", b"-ERR")):
        if data and not binding:
            continue
        context = trusting()
        context.maximum_version = version
        client: poplib.POP3
        if service == "pop3s":
            client = poplib.POP3_SSL(HOST, everybody.suite.port(service), timeout=30, context=context)
        else:
            client = poplib.POP3(HOST, everybody.suite.port(service), timeout=30)
            client.stls(context)

        def ask(line: str, client: poplib.POP3 = client) -> bytes:
            client._putline(line.encode())  # type: ignore[attr-defined]
            reply: bytes = client._getline()[0]  # type: ignore[attr-defined]
            return reply

        assert scram_login(ask, b"+ ", client.sock, secret, binding, data).startswith(wanted)
        client.close()
