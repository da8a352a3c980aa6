"""inject: complete a message and queue it (qmail-inject).

Usage:   qm-inject [-nNaAhH] [-fsender] [recipient ...]
Reads:   fd 0 (the message), control/{defaultdomain,defaulthost,idhost,plusdomain}, the file that QMAILMFTFILE names
Env:     QMHOME; QMAILUSER, MAILUSER, USER, LOGNAME; QMAILHOST, MAILHOST; QMAILNAME, MAILNAME, NAME; QMAILSUSER,
         QMAILSHOST; QMAILDEFAULTDOMAIN, QMAILDEFAULTHOST, QMAILPLUSDOMAIN, QMAILIDHOST; QMAILMFTFILE; QMAILINJECT;
         QMAILNOTIFY, QMAILRET, QMAILENVID (RFC 3461); QMTLS (RFC 8689)
Writes:  fd 1 (-n: the result), fd 2 (what is wrong)
Asks:    queue
As:      the caller
Exits:   0 queued, or printed; 100 usage, an address or a field about the sender that cannot be parsed, or the queue
         refuses; 111 not now
See:     qm-inject(8), qmail.md 16.1
"""

import os
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from qm.disk.control import Controls
from qm.errors import OK, Permanent
from qm.inject.options import options
from qm.inject.policy import Composer, Mail, Moment
from qm.unix import log, postbox, standard
from qm.unix.program import Argv, Env, enter_home, program
from qm.wire.address import quote
from qm.wire.qualify import CONTROLS, hosts
from qm.wire.rfc822 import HEADER_MAX, Field, HeaderReader, HeaderTooLong, lines_ended

_NAME: Final = b"qm-inject"
_LISTS_MAX: Final = 1024 * 1024  # bytes of QMAILMFTFILE


def _lists(path: bytes) -> frozenset[bytes]:
    """The mailing lists that the file *path* names; none if it cannot be read."""
    if not path:
        return frozenset()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(fd, _LISTS_MAX)
        finally:
            os.close(fd)
    except OSError:
        return frozenset()
    lines = (line.rstrip(b" \t").lower() for line in text.split(b"\n"))
    return frozenset(line for line in lines if line and not line.startswith(b"#"))


def _header(message: Iterator[bytes]) -> tuple[list[Field], bytes]:
    """Read the header; gives it, and what was read of the rest."""
    reader = HeaderReader()
    try:
        for piece in message:
            if reader.feed(piece):
                break
        reader.end()
    except HeaderTooLong as error:
        raise Permanent(f"the header is longer than {HEADER_MAX} bytes", status="3.4") from error
    return reader.fields, reader.body


def _print(mail: Mail, body: Iterable[bytes]) -> None:
    standard.write(b"Return-Path: <" + quote(mail.envelope.sender) + b">\n" + mail.header)
    for piece in body:
        standard.write(piece)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    wanted = options(argv, env)
    lists = _lists(env.get(b"QMAILMFTFILE", b""))  # the path is the caller's, and starts where he is
    enter_home(env)
    known = hosts(Controls(CONTROLS), env)
    moment = Moment(int(time.time()), os.getpid())
    composer = Composer(wanted, known, lists, moment)
    message = lines_ended(standard.chunks())
    fields, begun = _header(message)
    mail = composer.mail(fields)
    for complaint in mail.complaints:
        log.warning(_NAME, complaint)
    if wanted.print_only:
        _print(mail, chain([begun], message))
    else:
        postbox.post(env, chain([mail.header, begun], message), mail.envelope)
    return OK
