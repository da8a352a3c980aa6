"""A mail exchanger that says what a script tells it to, and writes down what it hears.

Usage: scripted_mx.py address[/port] script log.  The script is JSON: ``{"MAIL": ["250 ok"], ".": ["!close"]}``.  A
key is "greeting", a command's first word, or "." for the end of a message; its actions are used in turn, over all
sessions, the last one again and again.  An action is a reply without its CRLF, or !close, !reset, !hang (deaf and dumb
until the client leaves), !endless, !raw:bytes, !tls:file (a TLS handshake with the key and chain of that file), or a
list of such; and !scram, a first message of SCRAM that has the nonce of the line before.  Behind TLS, "EHLO+TLS" goes
before "EHLO" where the script has it, and so on.

The log has a JSON line for each session, command and message, written before it is answered.
"""

import base64
import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

DEFAULT = {
    "greeting": ["220 mx.test ESMTP"],
    "EHLO": ["250-mx.test\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"],
    "HELO": ["250 mx.test"],
    "DATA": ["354 go ahead"],
    "QUIT": [["221 2.0.0 bye", "!close"]],
    "*": ["250 2.0.0 ok"],
}
ENDLESS = b"250-and so on\r\n" * 1000
SESSIONS_MAX = 1000


class Closed(Exception):
    """The session is over."""


class Script:
    """What to say next, for all sessions."""

    def __init__(self, text: str) -> None:
        self._actions: dict[str, list[Any]] = {**DEFAULT, **json.loads(text)}
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()

    def next(self, key: str, *, tls: bool = False) -> Any:
        key = f"{key}+TLS" if tls and f"{key}+TLS" in self._actions else key
        with self._lock:
            actions = self._actions.get(key) or self._actions["*"]
            at = self._used.get(key, 0)
            self._used[key] = at + 1
            return actions[min(at, len(actions) - 1)]


class Session:
    def __init__(self, number: int, connection: socket.socket, script: Script, log: BinaryIO) -> None:
        self._number = number
        self._connection = connection
        self._script = script
        self._log = log
        self._stream = connection.makefile("rb")
        self._tls = False
        self._heard = ""

    def run(self) -> None:
        try:
            self._write_down(open=True)
            self._act(self._script.next("greeting"))
            for line in self._lines():
                self._command(line)
        except (Closed, OSError):
            pass
        finally:
            self._stream.close()
            self._connection.close()

    def _lines(self) -> Iterator[bytes]:
        while line := self._stream.readline():
            yield line

    def _write_down(self, **what: object) -> None:
        self._log.write(json.dumps({"session": self._number, **what}).encode() + b"\n")

    def _command(self, line: bytes) -> None:
        text = self._heard = line.decode("latin-1")
        self._write_down(line=text)
        verb = text.split(None, 1)[0].upper() if text.strip() else "*"
        if verb == "BDAT":
            octets = int(text.split()[1])
            self._write_down(chunk=self._stream.read(octets).decode("latin-1"))
        if self._act(self._script.next(verb, tls=self._tls)).startswith("354"):
            self._message()

    def _message(self) -> None:
        lines = []
        for line in self._lines():
            if line == b".\r\n":
                self._write_down(text=b"".join(lines).decode("latin-1"))
                self._act(self._script.next("."))
                return
            lines.append(line)
        self._write_down(cut=b"".join(lines).decode("latin-1"))

    def _act(self, action: Any) -> str:
        """Do what the script says; gives the last thing said."""
        said = ""
        for one in action if isinstance(action, list) else [action]:
            said = self._act_once(one)
        return said

    def _shake_hands(self, path: str) -> None:
        names: list[object] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.sni_callback = lambda connection, name, context: names.append(name)
        try:
            self._connection = secured = context.wrap_socket(self._connection, server_side=True)
        except ssl.SSLError as error:
            self._write_down(refused=error.reason)
            raise
        self._stream.close()
        self._stream = secured.makefile("rb")
        self._tls = True
        self._write_down(tls=secured.version(), sni=names[0] if names else None)

    def _act_once(self, action: str) -> str:
        if action == "!hang":
            while self._connection.recv(65536):
                pass
            raise Closed
        if action == "!reset":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Closed
        if action == "!scram":
            nonce = base64.b64decode(self._heard.split()[-1]).rpartition(b"r=")[2]
            action = "334 " + base64.b64encode(b"r=%bmore,s=c2FsdHNhbHQ=,i=4096" % nonce).decode()
        if action.startswith("!tls:"):
            self._shake_hands(action[5:])
            return action
        if action == "!close":
            raise Closed
        if action == "!endless":
            while True:
                self._connection.sendall(ENDLESS)
        data = action[5:] if action.startswith("!raw:") else action + "\r\n"
        self._connection.sendall(data.encode("latin-1"))
        return action


def main(address: str, script: str, log: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address.partition("/")[0], int(address.partition("/")[2] or 0)), family=family)
    plan = Script(script)
    print(listener.getsockname()[1], flush=True)
    with open(log, "ab", buffering=0) as file:
        for number in range(SESSIONS_MAX):
            connection, _ = listener.accept()
            threading.Thread(target=Session(number, connection, plan, file).run, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
