"""maildirwatch: show what has come into a Maildir, again every 30 s.

Usage:   maildirwatch
Reads:   the messages in $MAILDIR/new
Env:     MAILDIR
Writes:  fd 1 (a terminal)
As:      whose mail it is
Exits:   111 the Maildir or the terminal cannot be used; it does not end by itself
See:     maildirwatch(1), qmail.md section 18
"""

import os
import re
import time
from contextlib import suppress
from typing import Final

from qm.errors import TEMPORARY, Permanent, Temporary
from qm.unix import standard
from qm.unix.program import Argv, Env, program
from qm.wire.rfc822 import HeaderReader, HeaderTooLong

INTERVAL_S: Final = 30.0
SHOWN_MAX: Final = 20  # messages
_WIDTH: Final = 78
_READ: Final = 65536  # bytes of a message
_CLEAR: Final = b"\x1b[;H\x1b[;J"  # ANSI
_UNPRINTABLE: Final = re.compile(rb"[^ -~]")


def _printable(text: bytes) -> bytes:
    return _UNPRINTABLE.sub(b"?", b" ".join(text.split()))[:_WIDTH]


def describe(message: bytes) -> bytes:
    """From whom to whom, From, and subject with the begin of the body."""
    reader = HeaderReader()
    with suppress(HeaderTooLong):
        reader.feed(message)
        reader.end()
    found = {field.name: field.body for field in reversed(reader.fields)}
    sender, recipient = (found.get(name, b"").strip() for name in (b"return-path", b"delivered-to"))
    lines = [
        b"FROM %b TO %b" % (sender or b"?", recipient or b"?"),
        b"From:" + found.get(b"from", b""),
        b"Subject:%b / %b" % (found.get(b"subject", b"").rstrip(), reader.body[: 4 * _WIDTH]),
    ]
    return b"".join(_printable(line) + b"\n" for line in lines)


def screen(maildir: bytes) -> bytes:
    """What is shown of the Maildir that is the current directory."""
    with os.scandir(b"new") as entries:
        new = sorted(e.path for e in entries if e.is_file(follow_symlinks=False) and not e.name.startswith(b"."))
    parts = [_CLEAR, b"%d new messages in %b\n" % (len(new), _printable(maildir))]
    for path in new[-SHOWN_MAX:]:
        with suppress(FileNotFoundError):  # its reader has it
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                parts.append(b"\n" + describe(os.read(fd, _READ)))
            finally:
                os.close(fd)
    return b"".join(parts)


@program(at_home=False, permanent=TEMPORARY)
def main(argv: Argv, env: Env) -> int:
    maildir = env.get(b"MAILDIR")
    if not maildir:
        raise Permanent("MAILDIR is not set")
    try:
        os.chdir(maildir)
        while True:
            standard.write(screen(maildir))
            time.sleep(INTERVAL_S)
    except OSError as error:
        raise Temporary("cannot read the Maildir", detail=f"{os.fsdecode(maildir)}: {error.strerror}") from error
