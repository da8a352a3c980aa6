"""vacation: answer mail while its reader is away; for a line of a .qmail file (RFC 3834).

Usage:   qm-vacation [-j] [-a address]... [-d days] [file]
Reads:   fd 0 (the message's header), file (.vacation.msg), .vacation.answered
Env:     SENDER, RECIPIENT (qmail.md 13.5); QMHOME
Writes:  .vacation.answered, .vacation.lock; fd 2 (why there is no answer, if that is trouble)
Asks:    queue
As:      the recipient, in his home
Exits:   0 always, so that the mail itself is delivered; but 111 if the command line is wrong
See:     qm-vacation(1), dot-qmail(5)
"""

import os
import time
from typing import Final, NamedTuple

from qm.errors import OK, TEMPORARY, QmError, Temporary
from qm.unix import dotqmailenv, log, postbox, standard
from qm.unix.options import parse
from qm.unix.program import Argv, Env, Usage, program
from qm.vacation import memory, policy
from qm.wire.envelope import Envelope, Recipient
from qm.wire.rfc822 import fields

USAGE: Final = "usage: qm-vacation [-j] [-a address]... [-d days] [file]"
NAME: Final = b"qm-vacation"
FILE: Final = b".vacation.msg"
TEXT_MAX: Final = 65536  # bytes of the answer
DAYS: Final = 7  # between two answers to one sender; RFC 3834 2
DAYS_MAX: Final = 365
_DAY_S: Final = 86400


class _Command(NamedTuple):
    addresses: list[bytes]
    everything: bool
    interval_s: int
    file: bytes


def _command(argv: Argv) -> _Command:
    options, words = parse(argv[1:], USAGE, flags=b"j", valued=b"ad")
    days = dict(options).get(b"d", b"%d" % DAYS)
    if len(words) > 1 or not (days.isdigit() and len(days) < 4 and 0 < int(days) <= DAYS_MAX):
        raise Usage(USAGE)
    addresses = [value for letter, value in options if letter == b"a"]
    return _Command(addresses, (b"j", b"") in options, int(days) * _DAY_S, words[0] if words else FILE)


def _text(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(TEXT_MAX + 1)
    except OSError as error:
        raise Temporary("no answer", detail=f"{os.fsdecode(path)}: {error.strerror}") from error
    if len(text) > TEXT_MAX:
        raise Temporary("no answer", detail=f"{os.fsdecode(path)}: longer than {TEXT_MAX} bytes")
    return text


def _answer(command: _Command, env: Env) -> None:
    sender, recipient = dotqmailenv.variable(env, b"SENDER"), dotqmailenv.variable(env, b"RECIPIENT")
    reader = policy.Reader([recipient, *command.addresses], command.everything)
    header = fields(standard.chunks())
    if policy.objection(header, sender, reader):
        return
    now_s = int(time.time())
    with memory.held(now_s, command.interval_s) as known:
        if known.may_answer(sender):
            answer = policy.answer(header, sender, reader, _text(command.file), now_s, os.getpid())
            known.answered(sender)  # first: it shall rather be forgotten than sent twice
            postbox.post(env, [answer], Envelope(b"", (Recipient(sender),)))


@program(at_home=False, permanent=TEMPORARY)
def main(argv: Argv, env: Env) -> int:
    command = _command(argv)
    try:
        _answer(command, env)
    except QmError as error:
        log.warning(NAME, str(error))
    return OK
