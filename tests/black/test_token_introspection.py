"""checkpassword-oauth asks the issuer (RFC 7662): a real one, and those that answer as no issuer would."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.unix import https, tlscontext
from tests.harness.barehome import BareHome, bare_home
from tests.harness.certificates import Authority
from tests.harness.issuer import CLIENT, SECRET, issuer
from tests.harness.peers import HttpsServer

ISS = "https://id.example"
ANN = {"iss": ISS, "aud": "mail", "sub": "ann", "exp": int(time.time()) + 3600}
TOKENS = {
    "good": ANN,
    "of.many~audiences": {**ANN, "aud": ["web", "mail"]},
    "without-end": {key: value for key, value in ANN.items() if key != "exp"},
    "old": {**ANN, "exp": int(time.time()) - 300},
    "anothers": {**ANN, "iss": "https://other.example"},
    "for-the-web": {**ANN, "aud": "web"},
    "for-nobody": {key: value for key, value in ANN.items() if key != "aud"},
    "nameless": {key: value for key, value in ANN.items() if key != "sub"},
    "numbered": {**ANN, "sub": 7},
    "revoked": {**ANN, "active": False},
}
GOOD = ("good", "of.many~audiences", "without-end")


@pytest.fixture
def home() -> Iterator[BareHome]:
    with bare_home(None) as made:
        yield made


def _describe(home: BareHome, url: str, secret: str = SECRET) -> None:
    path = home.folder / "endpoint"
    path.write_text(json.dumps({"introspection_endpoint": url, "client_id": CLIENT, "client_secret": secret}))
    path.chmod(0o640)


def _check(home: BareHome, token: str) -> tuple[int, str, str]:
    """Exit code, who it is, and what was said."""
    (home.folder / "record").write_bytes(b"ann\0" + token.encode() + b"\0\0oauthbearer\0")
    program = home.command(["checkpassword-oauth", "endpoint", ISS, "mail", "sub", "printenv", "USER"])
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 3<record', "sh", *program], cwd=home.folder, env=home.environment(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode().strip() or "-", done.stderr.decode()


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_a_real_issuer(home: BareHome, encrypted: bool) -> None:
    """Who a token is for is what the issuer says, if the token is ours; by HTTPS, and on this machine by HTTP."""
    authority = Authority(home.folder)
    home.control("tlsroots", "root.pem\n")
    with issuer(TOKENS, authority.issue("localhost") if encrypted else None) as made:
        _describe(home, made.url)
        for token in TOKENS:
            wanted = (0, "ann", "") if token in GOOD else (1, "-", "")
            assert _check(home, token) == wanted, token
        assert _check(home, "unknown")[0] == 1
        assert made.asked == [*TOKENS, "unknown"]


def test_we_are_not_known(home: BareHome) -> None:
    """An issuer that does not know us says nothing about tokens: later, and the secret is in no log."""
    with issuer(TOKENS) as made:
        _describe(home, made.url, "another secret")
        code, _, said = _check(home, "good")
    assert code == 111
    assert "status 401" in said and "another" not in said and "good" not in said


def _answer(body: str, head: str = "200 OK", kind: str = "application/json") -> str:
    return f"HTTP/1.1 {head}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


_YES = json.dumps({"active": True, **ANN})


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "yes\r\n",
        _answer(_YES, "302 Found\r\nLocation: https://localhost/"),
        _answer(_YES, "500 Oops"),
        _answer(_YES, kind="text/html"),
        _answer(_YES[:-1]),
        _answer("[" * 50_000),
        _answer(json.dumps([True])),
        _answer(json.dumps({**ANN, "active": "true"})),
        _answer(json.dumps(ANN)),
        _answer("@@"),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n@@",
    ],
)
def test_answers_that_are_none(home: BareHome, tmp_path: Path, answer: str) -> None:
    """What is not RFC 7662's, or has no end, lets nobody in, and is no verdict on the token."""
    authority = Authority(home.folder)
    home.control("tlsroots", "root.pem\n")
    with HttpsServer(tmp_path, authority.issue("localhost"), answer) as server:
        _describe(home, f"https://localhost:{server.port}/")
        code, who, said = _check(home, "good")
    assert (code, who) == (111, "-")
    assert "cannot check tokens" in said


def test_silence(tmp_path: Path) -> None:
    """An issuer that takes the token and says nothing is waited for until the limit."""
    authority = Authority(tmp_path)
    with HttpsServer(tmp_path, authority.issue("localhost"), "!hang") as server:
        where = https.Server("localhost", server.port, "localhost", tlscontext.named(str(authority.path)))
        with pytest.raises(https.NotFetched):
            https.post(where, "/", "token=x", "Basic eDp5", 0.3)


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_wrong_certificate(home: BareHome, tmp_path: Path, wrong: str) -> None:
    """Who is not the issuer hears no token."""
    authority = Authority(home.folder)
    home.control("tlsroots", "root.pem\n")
    certificate = authority.issue("other.test")
    if wrong == "authority":
        certificate = Authority(home.folder, "stranger").issue("localhost")
    with HttpsServer(tmp_path, certificate, _answer(_YES)) as server:
        _describe(home, f"https://localhost:{server.port}/")
        assert _check(home, "good")[0] == 111
        assert server.asked() == []


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/", "ftp://localhost/", "https://", "https://a@b/", "https://x:y/", ""]
)
def test_where_nobody_is_asked(home: BareHome, url: str) -> None:
    """In clear over a network, by another protocol, at no URL: nobody is asked, and nobody gets in."""
    _describe(home, url)
    code, _, said = _check(home, "good")
    assert code == 111
    assert "introspection_endpoint" in said


def test_a_secret_that_others_may_read(home: BareHome) -> None:
    """A file with our secret that everybody may read is not used."""
    _describe(home, "https://localhost:1/")
    (home.folder / "endpoint").chmod(0o644)
    code, _, said = _check(home, "good")
    assert code == 111
    assert "chmod o-r" in said
