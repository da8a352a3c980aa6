"""A user's session at submission, word by word: what smtplib would never say."""

import base64
import re
import socket
import ssl
from typing import Final

from tests.harness.suite import DOMAIN, HOST, Suite, trusting
from tests.harness.waiting import LIMIT_S

ANN: Final = f"ann@{DOMAIN}"
BOB: Final = f"bob@{DOMAIN}"


class Raw:
    """A connection to a service with TLS from the first byte; *login* is ann's, unless it is empty."""

    def __init__(self, suite: Suite, login: bytes = b"\0ann\0secret") -> None:
        plain = socket.create_connection((HOST, suite.port("submits")), LIMIT_S)
        self._tls: ssl.SSLSocket = trusting().wrap_socket(plain, server_hostname=DOMAIN)
        self._file = self._tls.makefile("rb")
        assert self.reply() == 220
        assert self.say(b"EHLO client.example\r\n") == 250
        if login:
            assert self.auth(login) == 235

    def reply(self) -> int:
        """The code of the next answer; 0 at the end."""
        while (line := self._file.readline()) and line[3:4] == b"-":
            pass
        self.text = line
        return int(line[:3] or 0)

    def say(self, data: bytes) -> int:
        self._tls.sendall(data)
        return self.reply()

    def auth(self, login: bytes) -> int:
        return self.say(b"AUTH PLAIN " + base64.b64encode(login) + b"\r\n")

    def rest(self) -> list[int]:
        """The codes of all that is said until the end."""
        codes = []
        while code := self.reply():
            codes.append(code)
        return codes

    def message(self, data: bytes, sender: str = ANN, recipient: str = BOB) -> int:
        """The answer to a whole message."""
        assert self.say(f"MAIL FROM:<{sender}>\r\n".encode()) == 250
        assert self.say(f"RCPT TO:<{recipient}>\r\n".encode()) == 250
        assert self.say(b"DATA\r\n") == 354
        return self.say(data + b"\r\n.\r\n")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._tls.close()


def fields(mail: bytes, name: bytes) -> list[bytes]:
    header = mail.partition(b"\n\n")[0]
    return re.findall(rb"^%b:[ \t]*(.*)$" % name, header, re.MULTILINE | re.IGNORECASE)
