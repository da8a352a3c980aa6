"""Attack: a client that opens connections and begins handshakes, to leave no room for others."""

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S

ELSEWHERE = "127.0.0.2"


def _hello() -> bytes:
    """How a client begins."""
    outgoing = ssl.MemoryBIO()
    try:
        trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=DOMAIN).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def test_half_open_handshakes(make_suite: Callable[[], Suite]) -> None:
    """With -C below -c, as install makes it, one address that begins handshakes leaves room for the others."""
    suite = make_suite()
    popup = f"qm-popup {DOMAIN} checkpassword qm-pop3d Maildir"
    suite.service("pop3s", f"tcpserver -v -H -R -c 4 -C 2 {HOST} 0 qm-tls pop3 {popup}")
    suite.start()
    port = suite.port("pop3s")
    hello = _hello()
    with ExitStack() as held:
        for begun in (b"", hello[:100], hello, hello):
            client = held.enter_context(socket.create_connection((HOST, port), LIMIT_S))
            client.sendall(begun)
        suite.wait_for_log("dropping connection from 127.0.0.1: it has 2")
        network = socket.create_connection((HOST, port), LIMIT_S, source_address=(ELSEWHERE, 0))
        with trusting().wrap_socket(network, server_hostname=DOMAIN) as honest:
            assert honest.recv(512).startswith(b"+OK")
