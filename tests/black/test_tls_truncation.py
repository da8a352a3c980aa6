"""Attack: a connection under TLS that is cut (RFC 8446 6.1): what had not come to its end is not done."""

import socket
import ssl
from collections.abc import Callable

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S

MESSAGE = b"Subject: pay 100\r\n\r\nnot\r\n"


class Client:
    """TLS on memory, so that the network can be cut wherever we like."""

    def __init__(self, suite: Suite, service: str) -> None:
        self.network = socket.create_connection((HOST, suite.port(service)), LIMIT_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting().wrap_bio(self._incoming, self._outgoing, server_hostname=DOMAIN)
        self._do(self._tls.do_handshake)
        self.heard = b""

    def _do(self, action: Callable[[], object]) -> object:
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self.network.sendall(self._outgoing.read())
                piece = self.network.recv(65536)
                if not piece:
                    raise ConnectionResetError("an end without close_notify") from None
                self._incoming.write(piece)
            finally:
                self.network.sendall(self._outgoing.read())

    def wait(self, text: bytes) -> None:
        """Until the server has said a line that begins so."""
        while not any(line.startswith(text) for line in self.heard.splitlines()):
            piece = self.read()
            assert piece, self.heard
            self.heard += piece

    def read(self) -> bytes:
        """What comes; b"" for a close_notify.  Raises ConnectionResetError for an end without one."""
        piece = self._do(lambda: self._tls.read(65536))
        assert isinstance(piece, bytes)
        return piece

    def say(self, text: bytes, wait: bytes = b"") -> None:
        self.heard = b""
        self._tls.write(text)
        self.network.sendall(self._outgoing.read())
        if wait:
            self.wait(wait)

    def sealed(self, text: bytes) -> bytes:
        """A record, not sent."""
        self._tls.write(text)
        return self._outgoing.read()

    def close_notify(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.network.sendall(self._outgoing.read())

    def rest(self) -> bytes:
        """What still comes, in clear, until the end of the stream."""
        data = b""
        try:
            while piece := self.network.recv(65536):
                self._incoming.write(piece)
        except ConnectionError:
            pass
        try:
            while piece := self._tls.read(65536):
                data += piece
        except ssl.SSLError:
            pass
        return data


def _into_data(suite: Suite) -> Client:
    client = Client(suite, "smtps")
    client.wait(b"220 ")
    client.say(b"EHLO x\r\n", b"250 ")
    client.say(b"MAIL FROM:<a@elsewhere.example>\r\n", b"250 ")
    client.say(b"RCPT TO:<ann@%b>\r\n" % DOMAIN.encode(), b"250 ")
    client.say(b"DATA\r\n", b"354 ")
    return client


@pytest.fixture
def suite(make_suite: Callable[[], Suite]) -> Suite:
    suite = make_suite()
    suite.service("smtps", "tcpserver -v -R -H 127.0.0.1 0 qm-tls smtp qm-smtpd")
    return suite.start()


@pytest.mark.parametrize("how", ["FIN", "reset", "half a record", "close_notify", "half a line"])
def test_a_message_that_is_cut(suite: Suite, how: str) -> None:
    """A message without its dot is not accepted, however the connection ends: nothing is queued, nothing delivered."""
    client = _into_data(suite)
    client.say(MESSAGE)
    if how == "half a record":
        client.network.sendall(client.sealed(b"and more\r\n.\r\n")[:-1])
    elif how == "half a line":
        client.say(b"more\r\n.")
    elif how == "close_notify":
        client.close_notify()
    if how == "reset":
        client.network.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.network.close()
    else:
        client.network.shutdown(socket.SHUT_WR)
        assert b"250" not in client.rest()
        client.network.close()
    _another(suite)
    assert len(suite.wait_for_mail()) == 1


def _another(suite: Suite) -> None:
    """A message of an honest client, after which a message of the cut one would be there, too."""
    client = _into_data(suite)
    client.say(b"Subject: honest\r\n\r\n.\r\n", b"250 ")
    client.say(b"QUIT\r\n", b"221 ")
    client.network.close()
    assert b"honest" in suite.wait_for_mail()[0]
    suite.wait_until_idle()


def test_a_message_that_is_not_cut(suite: Suite) -> None:
    """With its dot it is accepted, though the client closes without close_notify right behind it: accepted is kept."""
    client = _into_data(suite)
    client.say(MESSAGE + b".\r\n")
    client.network.shutdown(socket.SHUT_WR)
    assert b"250 " in client.rest()
    client.network.close()
    assert suite.wait_for_mail()[0].endswith(b"not\n")


def test_a_changed_record(suite: Suite) -> None:
    """A record that was tampered with ends the session; what came before it counts, what is in it does not."""
    client = _into_data(suite)
    client.say(MESSAGE)
    record = bytearray(client.sealed(b".\r\n"))
    record[-1] ^= 1
    client.network.sendall(record)
    assert b"250" not in client.rest()
    client.network.close()
    _another(suite)
    assert len(suite.mail()) == 1


def test_deletions_need_a_quit(suite: Suite) -> None:
    """POP3 under TLS: a connection that is cut before QUIT removes nothing (RFC 1939 6)."""
    suite.send(f"ann@{DOMAIN}", MESSAGE)
    suite.wait_for_mail()
    client = Client(suite, "pop3s")
    client.wait(b"+OK")
    client.say(b"USER ann\r\n", b"+OK")
    client.say(b"PASS secret\r\n", b"+OK")
    client.say(b"DELE 1\r\n", b"+OK")
    client.network.sendall(client.sealed(b"QUIT\r\n")[:-1])
    client.network.shutdown(socket.SHUT_WR)
    client.rest()
    client.network.close()
    assert len(suite.mail()) == 1


def test_our_own_end_is_no_truncation(suite: Suite) -> None:
    """After the reply to QUIT comes close_notify: the client can tell that it has heard all."""
    client = Client(suite, "smtps")
    client.wait(b"220 ")
    client.say(b"QUIT\r\n", b"221 ")
    assert client.read() == b""
    client.network.close()
