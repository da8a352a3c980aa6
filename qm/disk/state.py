"""queue/state/ID: what happened to a message's recipients so far, one line each, oldest first.

Eight fields with tabs between them: time, recipient index, letter (K delivered, Z deferred, D failed; B the reports
at the end are queued, W the delay warning is), next try (0: none), RFC 3463 status, the host that said it, its
reply, and the text.  An empty field is ``-``.  A backslash escapes itself, LF (``\\n``) and every byte outside
printable ASCII (``\\xHH``).  A line that a crash has cut short is not a line.

The file is the machine's memory and the human's history at once.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from qm.disk.regular import open_regular

_LETTERS: Final = (b"K", b"k", b"Z", b"D", b"B", b"W")  # k: K whose reports of success are the next host's
_FIELDS: Final = 8
TEXT_MAX: Final = 4096  # bytes of a text before escaping
_DIRTY: Final = re.compile(rb"[^ -\[\]-~]")
_ESCAPED: Final = re.compile(rb"\\(n|\\|x[0-9a-f]{2})")


class Outcome(NamedTuple):
    at_s: int
    recipient: int  # its index the recipient; of B and W, 0
    letter: bytes
    next_s: int  # when it is due again, for Z
    text: bytes
    status: bytes = b""
    mta: bytes = b""  # empty: nobody but us
    diagnostic: bytes = b""
    relayed: bool = False  # K: DSN parameters went along, reports of success are the next host's


def _escape(match: re.Match[bytes]) -> bytes:
    byte = match[0]
    return b"\\n" if byte == b"\n" else b"\\\\" if byte == b"\\" else b"\\x%02x" % byte[0]


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return b"\n" if code == b"n" else b"\\" if code == b"\\" else bytes.fromhex(code[1:].decode("ascii"))


def _field(value: bytes) -> bytes:
    return _DIRTY.sub(_escape, value[:TEXT_MAX]) or b"-"


def _value(field: bytes) -> bytes:
    return b"" if field == b"-" else _ESCAPED.sub(_unescape, field)


def format_line(outcome: Outcome) -> bytes:
    letter = b"k" if outcome.relayed else outcome.letter
    numbers = b"%d\t%d\t%b\t%d\t" % (outcome.at_s, outcome.recipient, letter, outcome.next_s)
    texts = (outcome.status, outcome.mta, outcome.diagnostic, outcome.text)
    return numbers + b"\t".join(map(_field, texts)) + b"\n"


def parse(lines: Iterable[bytes]) -> Iterator[Outcome]:
    """The outcomes of a state file's lines; one that is none of ours, or has no LF, is passed over."""
    for line in lines:
        fields = line.rstrip(b"\n").split(b"\t")
        if len(fields) != _FIELDS or fields[2] not in _LETTERS or not line.endswith(b"\n"):
            continue
        numbers = fields[0], fields[1], fields[3]
        if not all(n.isdigit() and len(n) < 20 for n in numbers):
            continue
        at_s, recipient, next_s = map(int, numbers)
        status, mta, diagnostic, text = map(_value, fields[4:])
        yield Outcome(at_s, recipient, fields[2].upper(), next_s, text, status, mta, diagnostic, fields[2] == b"k")


def read(path: bytes) -> Iterator[Outcome]:
    """What the state file says, as it is asked for: there may be many lines.  No file, nothing.  Raises OSError."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        yield from parse(file)


def append(path: bytes, directory_fd: int, outcomes: Iterable[Outcome], *, durable: bool, named: bool = False) -> None:
    """Add *outcomes*; with *durable* they survive a crash once this returns.

    The file's name survives too, by a sync of its directory, unless the caller knows that it is *named* on disk.
    A deferral need not be durable: if it is lost the message is tried again sooner.
    Raises OSError; what was written of the lines is taken back, as far as that can be.
    """
    data = b"".join(map(format_line, outcomes))
    fd = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # a crash has cut the last line short
        if os.write(fd, data) != len(data):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    if durable and not named:
        os.fsync(directory_fd)
