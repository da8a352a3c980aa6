"""Clients of a TLS port that are not what they should be: each holds nothing but its own connection."""

import socket
import ssl
import subprocess

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S


def _connect(suite: Suite, service: str = "pop3s") -> socket.socket:
    return socket.create_connection((HOST, suite.port(service)), LIMIT_S)


def _all_that_comes(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def _hello(*protocols: str) -> bytes:
    context = trusting()
    if protocols:
        context.set_alpn_protocols([*protocols])
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=DOMAIN).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("service", ["pop3s", "submits"])
@pytest.mark.parametrize(
    "said",
    [b"EHLO client.example\r\nQUIT\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x80\x2e\x01\x03\x01", b"\0" * 70_000],
    ids=["SMTP", "HTTP", "SSLv2", "zeros"],
)
def test_what_is_not_tls_reaches_no_program(suite: Suite, service: str, said: bytes) -> None:
    """Neither smtpd nor popup hears or says a word; the peer gets an alert at most, and the end."""
    suite.control("timeouttls", "1\n")
    with _connect(suite, service) as client:
        client.sendall(said)
        answer = _all_that_comes(client)
    assert answer[:1] in (b"", b"\x15")
    assert len(answer) <= 7
    suite.wait_for_log(r"qm-tlsd: 127\.0\.0\.1: no TLS: ")


@pytest.mark.parametrize("service, right, wrong", [("pop3s", "pop3", "smtp"), ("submits", "smtp", "http/1.1")])
def test_alpaca(suite: Suite, service: str, right: str, wrong: str) -> None:
    """A client that wants another protocol gets the alert of RFC 7301, one that offers ours too gets ours (ALPACA)."""
    with _connect(suite, service) as client:
        client.sendall(_hello(wrong))
        assert _all_that_comes(client) == b"\x15\x03\x03\x00\x02\x02\x78"
    context = trusting()
    context.set_alpn_protocols([wrong, right])
    with context.wrap_socket(_connect(suite, service), server_hostname=DOMAIN) as tls:
        assert tls.selected_alpn_protocol() == right


def test_a_hello_byte_by_byte(suite: Suite) -> None:
    """A ClientHello in many segments is one ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting().wrap_bio(incoming, outgoing, server_hostname=DOMAIN)
    with _connect(suite) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    client.sendall(bytes([byte]))
                incoming.write(client.recv(65536))
        assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("count", [1500, 6000])
def test_a_huge_hello(suite: Suite, count: int) -> None:
    """A ClientHello of 14 or 54 KiB, over several records and many segments, is one ClientHello."""
    context = trusting()
    context.set_alpn_protocols([f"{number:08}" for number in range(count)] + ["pop3"])
    with context.wrap_socket(_connect(suite), server_hostname=DOMAIN) as tls:
        assert tls.selected_alpn_protocol() == "pop3"
        assert tls.recv(1000).startswith(b"+OK")


def test_stalled_handshakes_hold_their_own_workers_only(suite: Suite) -> None:
    """With one session left under the limit others are served; at the end of its time the stalled one is sent away."""
    suite.control("concurrencytls", "3\n")
    suite.control("timeouttls", "2\n")
    suite.service("tls", "qm-tlsd")
    suite.restart()
    with _connect(suite) as silent, _connect(suite) as half:
        half.sendall(_hello()[:40])
        with suite.under_tls("pop3s") as client:
            assert client.recv(100).startswith(b"+OK")
        assert _all_that_comes(silent) == _all_that_comes(half) == b""
    suite.wait_for(lambda: suite.log().count("no TLS: the client is too slow") == 2, "two lines in the log")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
@pytest.mark.needs("openssl")
def test_old_versions_are_refused(suite: Suite, version: str) -> None:
    """RFC 8996."""
    done = _openssl(suite, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "protocol version" in done
    assert "+OK" not in done


@pytest.mark.needs("openssl")
def test_renegotiation_is_refused(suite: Suite) -> None:
    """A client of TLS 1.2 that wants to renegotiate is told no (CVE-2011-1473)."""
    said = _openssl(suite, "-tls1_2", input=b"R\nQUIT\r\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


def _openssl(suite: Suite, *options: str, input: bytes = b"") -> str:
    command = ["openssl", "s_client", "-connect", f"{HOST}:{suite.port('pop3s')}", *options]
    done = subprocess.run(
        command, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
    )
    return done.stdout.decode("latin-1")


def test_a_cut_session_is_an_end(suite: Suite) -> None:
    """A connection that ends without close_notify ends the session, and what was half said is not done."""
    network = _connect(suite, "submits")
    tls = trusting().wrap_socket(network, server_hostname=DOMAIN)
    assert tls.recv(1000).startswith(b"220")
    tls.sendall(b"EHLO x\r\nMAIL FROM:<> ")
    tls.close()  # Python's sends no close_notify
    with suite.under_tls("submits") as client:
        assert client.recv(1000).startswith(b"220")
