"""local: deliver a message to one recipient: Maildir, mbox, program, forward (qmail-local).

Usage:   qm-local [-nN] user homedir local dash ext domain sender defaultdelivery
Reads:   fd 0 (the message, seekable), .qmail files of the home, control/timeoutprogram
Env:     QMHOME; QMAILQUEUE, for forwards; QMID, QMINDEX (the message's ID, and the recipient's number in it, which
         name the delivery);
         sets SENDER, RECIPIENT, DEFAULT and the others of qmail.md 13.5 for programs
Writes:  what the .qmail file says; fd 1 (report), fd 2 (report of a failure, log)
Asks:    queue, for forwards
As:      the recipient
Exits:   0 delivered; 100 it never will be; 111 not now
See:     qm-local(8), dot-qmail(5), qmail.md section 13; docs/INTERNALS.md 1.6

`work` is the other door: lspawn's warm workers call it, as the user and in the user's home, once for each delivery.
"""

import getopt
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.control import TABLE, BadControl, Controls
from qm.disk.message import write_all
from qm.local import session
from qm.local.policy import Job
from qm.unix import entrance, log
from qm.unix.program import Argv, Env, Usage, home_from_here, program
from qm.wire import queueid
from qm.wire.record import Malformed, number, unpack

USAGE: Final = "usage: qm-local [-nN] user homedir local dash ext domain sender defaultdelivery"
_FIELDS: Final = 11  # of a worker's record
_NUMBER_MAX: Final = 1 << 31


def _program_limit_s(env: Mapping[bytes, bytes]) -> float:
    try:
        return Controls(("timeoutprogram",), os.fsdecode(home_from_here(env) + b"/control")).number("timeoutprogram")
    except BadControl as error:
        if not isinstance(error.__cause__, PermissionError):  # a user need not be allowed to read it
            log.warning(session.NAME, f"{error.detail}; using the default")
        default = TABLE["timeoutprogram"].default
        assert isinstance(default, int)
        return default


def _tools(env: Mapping[bytes, bytes]) -> session.Tools:
    return session.Tools(
        env=env,
        queue=lambda: entrance.queue(dict(env), home_from_here(env)),
        program_limit_s=lambda: _program_limit_s(env),
    )


def work(record: bytes, descriptors: Sequence[int]) -> bytes:
    """Do one delivery: ``pack(user, home, local, dash, ext, domain, sender, defaultdelivery, ID, index, flags)``.

    The report is a letter (K, Z, D) and a text of at most policy.REPORT_MAX bytes.  Nothing is kept for the next one.
    """
    *arguments, message_id, index, flags = unpack(record, _FIELDS)
    if not queueid.valid(message_id) or len(descriptors) != 1:
        raise Malformed("no ID, or no message")
    job = Job._make((*arguments, message_id, number(index, _NUMBER_MAX), flags))
    return session.deliver(job, descriptors[0], _tools(os.environb)).report


def _job(arguments: Sequence[bytes], env: Env) -> Job:
    """The command line's job; without an ID of the queue it is a message of its own."""
    message_id, index = env.get(b"QMID", b""), env.get(b"QMINDEX", b"0")
    if not queueid.valid(message_id):
        message_id, index = queueid.make(time.time_ns(), os.getpid()), b"0"
    return Job._make((*arguments, message_id, int(index) if index.isdigit() and len(index) < 10 else 0, b""))


def _options(argv: Argv) -> tuple[bool, list[bytes]]:
    """Whether only to describe, and the eight arguments."""
    try:
        options, words = getopt.getopt([os.fsdecode(word) for word in argv[1:]], "nN")
    except getopt.GetoptError as error:
        raise Usage(USAGE) from error
    arguments = [os.fsencode(word) for word in words]
    if len(arguments) != len(Job._fields) - 3 or not arguments[1].startswith(b"/"):
        raise Usage(USAGE)
    return bool(options) and options[-1][0] == "-n", arguments


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    only_describe, arguments = _options(argv)
    job = _job(arguments, env)
    os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever calls us may have ignored or blocked what we wait for
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.chdir(job.home)
    except OSError as error:
        detail = f"{os.fsdecode(job.home)}: {error.strerror}"
        raise errors.Temporary("Unable to enter the home directory", detail=detail) from error
    outcome = session.describe(job) if only_describe else session.deliver(job, 0, _tools(env))
    with suppress(OSError):  # what has been delivered stays delivered, also if nobody hears of it
        write_all(1 if outcome.code == errors.OK else 2, outcome.text)
    return outcome.code
