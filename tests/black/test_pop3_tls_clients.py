"""POP3 under TLS for clients that others wrote, by STLS and at port 995, with every mechanism that they have."""

import poplib
import ssl
import subprocess
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


@pytest.fixture
def apop(everybody: Everybody) -> Iterator[None]:
    """The greeting has a banner for APOP."""
    everybody.suite.control("pop3apop", "1\n")
    yield
    everybody.suite.control("pop3apop", None)


def _curl(everybody: Everybody, service: str, mechanism: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    url = f"{service}://localhost:{everybody.suite.port(service)}/1"
    words = ["curl", "-sS", "--ssl-reqd", "--cacert", str(everybody.roots), url, "--connect-to", f"::{HOST}:"]
    return everybody.run(*words, *(["--login-options", f"AUTH={mechanism}"] if mechanism else []), *more)


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", ""])
def test_curl(everybody: Everybody, service: str, mechanism: str) -> None:
    """curl --ssl-reqd and pop3s://, with and without an initial response; a wrong password is told so."""
    for more in ([], ["--sasl-ir"]):
        done = _curl(everybody, service, mechanism, *more, "-u", f"{NAME}:{SECRET}")
        assert done.stdout.replace(b"\r\n", b"\n").endswith(TEXT), done.stderr
        refused = _curl(everybody, service, mechanism, *more, "-u", f"{NAME}:guess")
        assert refused.returncode == 67  # login denied


@pytest.mark.needs("curl")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("mechanism", ["DIGEST-MD5", "NTLM", "GSSAPI", "SCRAM-SHA-1", "XOAUTH2", "+APOP"])
def test_curl_without_a_mechanism(everybody: Everybody, service: str, mechanism: str) -> None:
    """curl does not log in by what is not offered."""
    done = _curl(everybody, service, mechanism, "-u", f"{NAME}:{SECRET}")
    assert done.returncode == 67 and done.stdout == b"", done.stderr


@pytest.mark.needs("curl")
@pytest.mark.usefixtures("apop")
@pytest.mark.parametrize("service", WAYS)
def test_curl_with_apop(everybody: Everybody, service: str) -> None:
    """curl by APOP, after STLS over the banner that came before it."""
    done = _curl(everybody, service, "+APOP", "-u", f"{NAME}:{SECRET}")
    assert done.stdout.replace(b"\r\n", b"\n").endswith(TEXT), done.stderr
    assert _curl(everybody, service, "+APOP", "-u", f"{NAME}:guess").returncode == 67


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


def _mpop(everybody: Everybody, service: str, method: str, *more: str) -> tuple[int, bytes]:
    """Its exit code, and what it has fetched."""
    folder = everybody.suite.home
    (folder / "got").unlink(missing_ok=True)
    (folder / "uidls").unlink(missing_ok=True)
    words = ["mpop", "--host=localhost", f"--port={everybody.suite.port(service)}", f"--auth={method}", "--tls=on"]
    words += [f"--tls-starttls={'on' if service == 'pop3' else 'off'}", f"--tls-trust-file={everybody.roots}"]
    words += [f"--user={NAME}", "--keep=on", f"--deliver=mbox,{folder}/got", f"--uidls-file={folder}/uidls"]
    done = everybody.run(*words, *more)
    print(done.stderr.decode("utf-8", "replace"))
    return done.returncode, (folder / "got").read_bytes() if (folder / "got").exists() else b""


@pytest.mark.needs("mpop")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize(
    "method", ["on", "user", "plain", "login", "cram-md5", "scram-sha-256", "oauthbearer", "external"]
)
def test_mpop(everybody: Everybody, service: str, method: str) -> None:
    """mpop with each method ("on" is its choice); and with a wrong password, a bad token, no certificate."""
    right = [f"--passwordeval=echo '{everybody.token() if method == 'oauthbearer' else SECRET}'"]
    wrong = ["--passwordeval=echo guess"]
    if method == "external":
        right = [f"--tls-cert-file={everybody.certificate}", f"--tls-key-file={everybody.certificate}"]
        wrong = []
    refused = (69 if method == "external" else 77, b"")  # EX_UNAVAILABLE, EX_NOPERM
    assert _mpop(everybody, service, method, *wrong) == refused
    code, got = _mpop(everybody, service, method, *right)
    assert code == 0 and b"last line\n" in got


@pytest.mark.needs("mpop")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["scram-sha-1", "digest-md5", "ntlm", "gssapi", "xoauth2", "apop"])
def test_mpop_without_a_method(everybody: Everybody, service: str, method: str) -> None:
    """mpop knows the method, and finds it not offered."""
    assert _mpop(everybody, service, method, f"--passwordeval=echo '{SECRET}'") == (69, b"")


@pytest.mark.needs("mpop")
@pytest.mark.usefixtures("apop")
@pytest.mark.parametrize("service", WAYS)
def test_mpop_with_apop(everybody: Everybody, service: str) -> None:
    """mpop by APOP, after STLS over the banner that came before it."""
    assert _mpop(everybody, service, "apop", "--passwordeval=echo guess") == (77, b"")
    code, got = _mpop(everybody, service, "apop", f"--passwordeval=echo '{SECRET}'")
    assert code == 0 and b"last line\n" in got


def _fetchmail(
    everybody: Everybody, service: str, proto: str, *, secret: str = SECRET, version: str = "auto"
) -> tuple[int, bytes, bytes]:
    """Its exit code, what it has fetched, and what it says; *proto* is "apop", or "pop3 auth METHOD"."""
    folder = everybody.suite.home
    config, got = folder / "fetchmailrc", folder / "got"
    got.unlink(missing_ok=True)
    config.write_text(
        f"poll localhost port {everybody.suite.port(service)} proto {proto} user {NAME} pass '{secret}'"
        f" {'ssl' if service == 'pop3s' else ''} sslproto '{version}' sslcertck sslcertfile {everybody.roots}"
        f" keep fetchall mda 'cat >{got}'\n"
    )
    config.chmod(0o600)
    done = everybody.run("fetchmail", "-f", str(config), "--nosyslog", "--pidfile", str(folder / "pid"), "-vv")
    said = done.stdout + done.stderr
    print(said.decode("utf-8", "replace"))
    return done.returncode, got.read_bytes() if got.exists() else b"", said


@pytest.mark.needs("fetchmail")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["any", "password", "cram-md5"])
def test_fetchmail(everybody: Everybody, service: str, method: str) -> None:
    """fetchmail with USER and PASS, CRAM-MD5, and one of its choice, whose server it knows by its root."""
    assert _fetchmail(everybody, service, f"pop3 auth {method}", secret="guess")[:2] == (3, b"")
    code, got, _ = _fetchmail(everybody, service, f"pop3 auth {method}")
    assert code == 0 and b".dot\nlast line\n" in got


@pytest.mark.needs("fetchmail")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("method", ["ntlm", "msn", "gssapi", "otp"])
def test_fetchmail_without_a_method(everybody: Everybody, service: str, method: str) -> None:
    """fetchmail asks for what is not offered, or does not, and has not logged in at the end."""
    assert _fetchmail(everybody, service, f"pop3 auth {method}")[:2] == (3, b"")


@pytest.mark.needs("fetchmail")
@pytest.mark.usefixtures("apop")
def test_fetchmail_with_apop(everybody: Everybody) -> None:
    """fetchmail by APOP; with that it does not ask for STLS by itself."""
    assert _fetchmail(everybody, "pop3s", "apop", secret="guess")[:2] == (3, b"")
    code, got, _ = _fetchmail(everybody, "pop3s", "apop")
    assert code == 0 and b".dot\nlast line\n" in got


@pytest.mark.needs("fetchmail")
@pytest.mark.parametrize("service", WAYS)
@pytest.mark.parametrize("version", ["tls1.2", "tls1.2+", "tls1.3", "tls1.3+", "tls1", "tls1.1"])
def test_fetchmail_with_a_version(everybody: Everybody, service: str, version: str) -> None:
    """fetchmail that is told a version of TLS has that one, or a newer one if it may; before 1.2 there is none."""
    code, got, said = _fetchmail(everybody, service, "pop3 auth password", version=version)
    if version in ("tls1", "tls1.1"):
        assert (code, got) == (2, b"")  # no connection
    else:
        assert code == 0 and b".dot\nlast line\n" in got
        used = b"TLSv1.2" if version == "tls1.2" else b"TLSv1.3"
        assert b"SSL/TLS: using protocol " + used in said


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
