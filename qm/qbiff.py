"""qbiff: show a user who is logged in that mail has come; for a line of a .qmail file (qbiff).

Usage:   qbiff
Reads:   fd 0 (the message), /run/utmp
Env:     USER, LOCAL, SENDER (qmail.md 13.5)
Writes:  the user's terminals that biff(1) has opened for it
As:      the recipient
Exits:   0 always: a terminal is no reason to hold mail up
See:     qbiff(1), dot-qmail(5), qmail.md section 17
"""

import os
import re
import stat
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Final

from qm.errors import OK, QmError
from qm.unix import standard
from qm.unix.program import Argv, Env, program
from qm.wire.rfc822 import HeaderReader, HeaderTooLong

UTMP: Final = "/run/utmp"
_UTMP_MAX: Final = 4 * 1024 * 1024  # bytes; 10,000 sessions
_RECORD: Final = struct.Struct("<h2xi32s4s32s")  # utmp(5): type, pid, line, id, user; the rest does not matter
_RECORD_SIZE: Final = {"aarch64": 400}.get(os.uname().machine, 384)  # bytes; elsewhere times have 32 bits here
_USER_PROCESS: Final = 7
_LINE: Final = re.compile(rb"[A-Za-z0-9]+(?:/[A-Za-z0-9]+)*")  # a name below /dev, and no way out of it
_UNPRINTABLE: Final = re.compile(rb"[^ -~]+")
_EXCERPT: Final = 78  # characters
_BODY_MAX: Final = 4096  # bytes that an excerpt is made from


def terminals(utmp: bytes, user: bytes) -> list[bytes]:
    """Where *user* is logged in, below /dev."""
    found = []
    for start in range(0, len(utmp) - _RECORD_SIZE + 1, _RECORD_SIZE):
        kind, _, line, _, name = _RECORD.unpack_from(utmp, start)
        line = line.partition(b"\0")[0]
        if kind == _USER_PROCESS and name.partition(b"\0")[0] == user and _LINE.fullmatch(line):
            found.append(line)
    return found


def excerpt(message: Iterator[bytes]) -> bytes:
    """The subject and the beginning of the body."""
    reader = HeaderReader()
    try:
        for piece in message:
            if reader.feed(piece):
                break
        reader.end()
    except HeaderTooLong:
        pass
    subject = next((field.body for field in reader.fields if field.name == b"subject"), b"")
    body = b""
    for piece in chain([reader.body], message):
        body += piece[:_BODY_MAX]
        if len(body) >= _BODY_MAX:
            break
    words = [_UNPRINTABLE.sub(b"_", b" ".join(text.split())) for text in (subject, body)]
    return b" / ".join(filter(None, words))[:_EXCERPT]


def notice(local: bytes, sender: bytes, text: bytes) -> bytes:
    line = _UNPRINTABLE.sub(b"_", b"*** TO <%b> FROM <%b>" % (local, sender))
    return b"\r\n\a%b\r\n%b\r\n" % (line, text)


def show(text: bytes, path: bytes) -> None:
    """Write to a terminal that is the caller's and has its owner's execute bit, as biff(1) sets it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & stat.S_IXUSR:
            os.write(fd, text)
    except OSError:
        pass  # it is closed, or full
    finally:
        os.close(fd)


def _sessions() -> bytes:
    try:
        with open(UTMP, "rb") as file:
            return file.read(_UTMP_MAX)
    except OSError:
        return b""


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    lines = terminals(_sessions(), env.get(b"USER", b""))
    if lines:
        try:
            text = notice(env.get(b"LOCAL", b""), env.get(b"SENDER", b""), excerpt(standard.chunks()))
        except QmError:
            return OK
        for line in lines:
            show(text, b"/dev/" + line)
    return OK
