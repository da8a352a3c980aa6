"""The first message: sent by SMTP, fetched by POP3, with the standard library's clients, which know nothing of us."""

import poplib
import secrets
import smtplib
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final, NamedTuple

TIMEOUT_S: Final = 10.0  # of each wait
PAUSE_S: Final = 0.02  # between two looks into the mailbox
HOST: Final = "127.0.0.1"


class NoDemonstration(Exception):
    """What did not work, in one line."""


class Login(NamedTuple):
    name: str
    password: str


def _message(address: str, mark: str) -> bytes:
    lines = (
        f"From: quickstart <{address}>",
        f"To: <{address}>",
        "Subject: It works",
        f"Date: {formatdate()}",
        f"Message-ID: <{mark}>",
        "",
        "This message came in by SMTP, waited in the queue, went into your Maildir",
        "and was fetched from there by POP3.",
        "",
    )
    return "\r\n".join(lines).encode()


def _expect(step: str, reply: tuple[int, bytes], code: int) -> str:
    text = reply[1].decode("utf-8", "replace")
    if reply[0] != code:
        raise NoDemonstration(f"SMTP {step} was answered {reply[0]} {text}")
    return text


def send(port: int, address: str) -> tuple[str, str]:
    """Send a message to *address* from itself; its Message-ID and what the server said at the end."""
    mark = f"{secrets.token_hex(8)}.quickstart@{address.rpartition('@')[2]}"
    try:
        with smtplib.SMTP(HOST, port, timeout=TIMEOUT_S) as client:
            _expect("EHLO", client.ehlo("quickstart.example"), 250)
            _expect("MAIL", client.mail(address), 250)
            _expect("RCPT", client.rcpt(address), 250)
            return mark, _expect("DATA", client.data(_message(address, mark)), 250)
    except (OSError, smtplib.SMTPException) as error:
        raise NoDemonstration(f"SMTP on port {port}: {error}") from error


def _mailbox(port: int, login: Login) -> Iterator[bytes]:
    """The messages of a mailbox, the newest first."""
    client = poplib.POP3(HOST, port, timeout=TIMEOUT_S)
    try:
        client.user(login.name)
        client.pass_(login.password)
        for number in range(client.stat()[0], 0, -1):
            yield b"\n".join(client.retr(number)[1])
    finally:
        client.close()


def fetch(port: int, login: Login, mark: str) -> str:
    """The message that *mark* is in, as soon as it is there."""
    deadline_s = time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline_s:
            newest = next(_mailbox(port, login), b"")
            if mark.encode() in newest:
                return newest.decode("utf-8", "replace")
            time.sleep(PAUSE_S)
    except (OSError, poplib.error_proto) as error:
        raise NoDemonstration(f"POP3 on port {port}: {error}") from error
    raise NoDemonstration(f"the message was not in the mailbox after {TIMEOUT_S:.0f} s")
