"""Dialogues as mail clients that cannot run here have them, word by word: what they say, and what they wait for.

They are files of tests/corpus/client.  Thunderbird's are made of SmtpClient.sys.mjs and Pop3Client.sys.mjs in
comm-central, and of its tests for what it said until version 91; those of K-9 Mail (Thunderbird for Android) of
SmtpTransport.kt, Pop3Connection.java and Pop3Folder.java; FairEmail's of JavaMail's Protocol.java.  NET is
System.Net.Mail, whose mechanism is in small letters, with the name behind it.  Outlook's are made of Microsoft's
article 155515, and of the blank behind the colon that it is known for.  Of Apple Mail only its name in EHLO is known.

The first line of a file is the service, and how many messages arrive, or are left of two.  C is a line of the client's;
those without a reply between them are one write, unless -- is between them.  S is what a reply begins with; behind
"with" are words that its lines must have, by the line.  TLS is a handshake; END is the end, after which a new
connection may come.  {words} are those of `_words`.
"""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.logins import NAME, SECRET, Everybody, everybody_logs_in
from tests.harness.suite import DOMAIN, ROOT, Suite, trusting

ANN: Final = f"{NAME}@{DOMAIN}"
SCRIPTS: Final = sorted((ROOT / "tests/corpus/client").glob("*.txt"))
AT_ONCE: Final = 12  # sessions of a program that has so many accounts with us
BODY: Final = "안녕\r\n..a dot\r\nlast line of it"
HEADER: Final = (
    f"Message-ID: <1@{DOMAIN}>\r\nDate: Tue, 24 Nov 2026 16:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    f"User-Agent: Mozilla Thunderbird\r\nContent-Language: en-US\r\nTo: {ANN}\r\nFrom: Ann <{ANN}>\r\n"
    "Subject: hello\r\n"
    "Content-Type: text/plain; charset=UTF-8; format=flowed\r\nContent-Transfer-Encoding: 8bit\r\n"
)
MESSAGE: Final = f"{HEADER}\r\n{BODY}"  # as it is said, without the last line's end
TEXT: Final = BODY.replace("..", ".").encode() + b"\r\n"


def _many_users(suite: Suite) -> None:
    for number in range(AT_ONCE):
        suite.add_user(f"user{number}", SECRET)


@pytest.fixture(scope="module")
def everybody() -> Iterator[Everybody]:
    """One suite for all."""
    with everybody_logs_in(_many_users) as made:
        yield made


def _bearer(token: str) -> str:
    return f"n,a={NAME},\x01auth=Bearer {token}\x01\x01"


def _words(everybody: Everybody) -> dict[bytes, bytes]:
    """What a script can say in braces."""
    encoded = {"plain": f"\0{NAME}\0{SECRET}", "guess": f"\0{NAME}\0guess", "name": NAME, "password": SECRET}
    encoded |= {
        "wrong": "guess",
        "token": _bearer(everybody.token()),
        "old token": _bearer(everybody.token(NAME, -300)),
    }
    words = {word: base64.b64encode(text.encode()) for word, text in encoded.items()}
    size = len(MESSAGE.encode()) + len("\r\n")
    plain = {"ann": ANN, "message": MESSAGE, "size": str(size), "secret": SECRET}
    words |= {word: text.encode() for word, text in plain.items()}
    return {b"{%b}" % word.encode(): value for word, value in words.items()}


class Player:
    """Plays a client's part against a service."""

    def __init__(self, everybody: Everybody, service: str) -> None:
        self._words = _words(everybody)
        self._port = everybody.suite.port(service)
        self._implicit = service in ("submits", "pop3s")
        self._smtp = service.startswith("submit")
        self._peer: Dialogue | None = None
        self._unsaid = b""

    def play(self, lines: list[str]) -> None:
        for line in lines:
            mark, _, rest = line.partition(" ")
            if mark == "C":
                self._unsaid += self._filled(rest.encode()) + b"\r\n"
                continue
            peer = self._connected()
            peer.say(self._unsaid)
            self._unsaid = b""
            if mark == "S":
                self._hear(peer, rest)
            elif mark == "TLS":
                self._encrypt(peer)
            elif mark == "END":
                assert peer.rest() == b""
                self.close()

    def _connected(self) -> Dialogue:
        if self._peer is None:
            self._peer = Dialogue(self._port)
            if self._implicit:
                self._encrypt(self._peer)
        return self._peer

    @staticmethod
    def _encrypt(peer: Dialogue) -> None:
        peer.socket = trusting().wrap_socket(peer.socket, server_hostname="localhost")

    def _filled(self, line: bytes) -> bytes:
        for word, value in self._words.items():
            line = line.replace(word, value)
        return line

    def _hear(self, peer: Dialogue, wanted: str) -> None:
        start, _, contents = wanted.partition(" with ")
        lines = [peer.line()]
        while self._smtp and lines[-1][3:4] == b"-":
            lines.append(peer.line())
        assert lines[-1].startswith(start.encode()), (wanted, lines)
        if contents and not self._smtp:
            lines = peer.text().splitlines()
        found = [set(line[4:].split() if self._smtp else line.split()) for line in lines]
        for words in filter(None, contents.split("; ")):
            assert any(set(words.encode().split()) <= line for line in found), (words, lines)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.socket.close()
            self._peer = None


def _fill(everybody: Everybody) -> None:
    """Two messages in ann's mailbox."""
    for number in (1, 2):
        everybody.suite.send(ANN, HEADER.replace("hello", str(number)).encode() + b"\r\n" + TEXT)
    everybody.suite.wait_for_mail(2)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(everybody: Everybody, path: Path) -> None:
    """The client hears what it waits for at each step; its mail arrives, and what it has removed is gone."""
    first, *lines = path.read_text().splitlines()
    service, count = first.split()
    everybody.clear()
    if service.startswith("pop3"):
        _fill(everybody)
    player = Player(everybody, service)
    try:
        player.play(lines)
    finally:
        player.close()
    mails = everybody.suite.wait_for_mail(int(count))
    everybody.suite.wait_until_idle()
    assert len(everybody.suite.mail()) == int(count)
    assert all(mail.endswith(b"\n\n" + TEXT.replace(b"\r\n", b"\n")) for mail in mails)
    if service.startswith("submit"):
        assert all(b"  by test.example with ESMTPSA (TLSv1.3 " in mail for mail in mails)


def test_many_accounts_at_once(everybody: Everybody) -> None:
    """A program with many accounts opens a session for each before it ends one: all of them are let in."""
    port = everybody.suite.port("pop3s")
    with ExitStack() as stack:
        peers = [stack.enter_context(Dialogue(port)) for _ in range(AT_ONCE)]
        for peer in peers:
            peer.socket = trusting().wrap_socket(peer.socket, server_hostname="localhost")
        assert all(peer.line().startswith(b"+OK") for peer in peers)
        for number, peer in enumerate(peers):
            peer.say(b"USER user%d\r\nPASS %b\r\n" % (number, SECRET.encode()))
        replies = [[peer.line()[:3] for _ in range(2)] for peer in peers]
        assert replies == [[b"+OK", b"+OK"]] * AT_ONCE
        for peer in peers:
            peer.say(b"STAT\r\nQUIT\r\n")
            assert [peer.line()[:5], peer.line()[:3]] == [b"+OK 0", b"+OK"]
