"""What fastforward does with a message, in the order of its effects: programs and mailboxes, then forwards.

The first failure ends it; at the next try what has been done is done again.
"""

import os
import stat
import time
from itertools import chain
from typing import Final

from qm.disk import maildir, mbox
from qm.disk.message import Message
from qm.errors import OK, PROGRAM_PERMANENT, Permanent, Temporary
from qm.fastforward.policy import Expansion
from qm.unix import child, dotqmailenv, log, postbox
from qm.unix.program import Env
from qm.wire import aliases, maillist, queueid
from qm.wire.envelope import Envelope, Recipient
from qm.wire.forwarding import Command, Kind

NAME: Final = b"fastforward"
LIST_MAX: Final = 16 * 1024 * 1024  # bytes of a list's file
_SHELL: Final = b"/bin/sh"
_DEVICE: Final = b"/dev/null"


def _content(path: bytes) -> bytes:
    """Raises OSError, and Temporary for a file that everybody may write or that is too large."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status, text = os.fstat(fd), file.read(LIST_MAX + 1)
    why = ""
    if not stat.S_ISREG(status.st_mode):
        why = "not a regular file"
    elif status.st_mode & stat.S_IWOTH:
        why = "everybody may write it; chmod o-w"
    elif len(text) > LIST_MAX:
        why = f"larger than {LIST_MAX} bytes"
    if why:
        raise Temporary("a mailing list cannot be used", detail=f"{os.fsdecode(path)}: {why}")
    return text


def read_list(path: bytes, host: bytes) -> list[Command]:
    """A compiled list; where there is none, but the text that newinclude would make it of, that; raises Temporary."""
    try:
        try:
            return maillist.decode(_content(path))
        except FileNotFoundError:
            text = path.removesuffix(maillist.COMPILED)
            if text == path:
                raise
            path = text
            return aliases.included(_content(path), host)
    except OSError as error:
        raise Temporary("a mailing list cannot be read", detail=f"{os.fsdecode(path)}: {error.strerror}") from error
    except ValueError as error:
        raise Temporary("a mailing list is broken", detail=f"{os.fsdecode(path)}:{error}") from error


class Delivery:
    """The message on descriptor 0, which must be seekable; raises Temporary, Permanent."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._message = Message(0)
        self._delivered_to = dotqmailenv.line(env, b"DTLINE")

    def run(self, expansion: Expansion) -> None:
        for number, (kind, argument) in enumerate(expansion.local):
            if kind is not Kind.FILE:
                self._program(argument, preline=kind is Kind.PRELINE)
            elif argument.endswith(b"/"):
                self._maildir(argument, number)
            elif argument != _DEVICE:
                self._mbox(argument)
        for sender, recipients in expansion.mails.items():
            envelope = Envelope(sender, tuple(map(Recipient, recipients)))
            accepted = postbox.post(self._env, self._message.chunks(self._delivered_to), envelope)
            log.info(NAME, f"id {accepted.name.decode('ascii')}")

    def _head(self) -> bytes:
        return dotqmailenv.line(self._env, b"RPLINE") + self._delivered_to

    def _from_line(self) -> bytes:
        return dotqmailenv.line(self._env, b"UFLINE")

    def _program(self, text: bytes, *, preline: bool) -> None:
        head = self._from_line() + self._head() if preline else b""
        pieces = filter(None, chain(self._message.chunks(head)))
        code = child.feed([_SHELL, b"-c", text], self._env, pieces)
        if code != OK:
            kind = Permanent if code in PROGRAM_PERMANENT else Temporary
            raise kind(f"A program of an alias ended with exit code {code}.")

    def _maildir(self, path: bytes, number: int) -> None:
        name = maildir.unique(queueid.make(time.time_ns(), os.getpid()), number, 0)
        delivery = maildir.Delivery(path, name, self._head(), self._message, maildir.host())
        maildir.deliver(delivery, possible_duplicate=False)

    def _mbox(self, path: bytes) -> None:
        mbox.deliver(mbox.Delivery(path, self._from_line(), self._head(), self._message, possible_duplicate=False))
