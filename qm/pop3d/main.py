"""pop3d: serve one Maildir by POP3 on descriptors 0 and 1, after login.

Usage:   qm-pop3d maildirname
Reads:   fd 0 (peer), maildirname
Env:     TIMEOUTPOP3D (s), USER and TCPREMOTEIP (for the log)
Writes:  fd 1 (peer), fd 2 (log), maildirname
As:      the mailbox's owner; refuses uid 0
Exits:   0 the client has had its answer, or has gone; 1 for uid 0; 111 a bug of ours
See:     qm-pop3d(8), RFC 1939, RFC 2449, qmail.md 16.6

No control file is read: by now we are the user, who need not be able to reach them.  popup puts what they say into
TIMEOUTPOP3D.
"""

import errno
import os
import time
from typing import Final

from qm import errors
from qm.disk import maildrop
from qm.pop3d.session import Session
from qm.unix import log, privs
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, program

NAME: Final = b"qm-pop3d"
REFUSED: Final = 1
TIMEOUT_S: Final = 600  # RFC 1939 3 asks for at least 10 minutes
TIMEOUT_MAX_S: Final = 86400  # poll(2) takes no more than 24 days
_NO_MAILBOX: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.EPERM))


class _Closed(Exception):
    """No session: *answer* is for the client, *why* for the log."""

    def __init__(self, answer: bytes, why: str) -> None:
        super().__init__(why)
        self.answer = answer
        self.why = why


def _timeout_s(env: Env) -> int:
    digits = env.get(b"TIMEOUTPOP3D", b"")
    told = int(digits) if digits.isdigit() and len(digits) < 10 else 0
    return min(told or TIMEOUT_S, TIMEOUT_MAX_S)


def _open(argv: Argv) -> tuple[maildrop.Maildrop, int]:
    """Enter the Maildir and lock it; raises _Closed."""
    if len(argv) != 2:
        raise _Closed(b"[SYS/PERM] no mailbox is set up", "usage: qm-pop3d maildirname")
    try:
        os.chdir(argv[1])
        lock = maildrop.lock()
        maildrop.sweep(time.time())
        return maildrop.Maildrop(), lock
    except maildrop.InUse as error:
        raise _Closed(b"[IN-USE] " + error.public.encode(), "in use") from error
    except errors.Temporary as error:
        raise _Closed(b"[SYS/TEMP] the mailbox cannot be locked", str(error)) from error
    except OSError as error:
        missing = error.errno in _NO_MAILBOX
        answer = b"[SYS/PERM] there is no mailbox" if missing else b"[SYS/TEMP] the mailbox cannot be read"
        raise _Closed(answer, f"{os.fsdecode(argv[1])}: {error.strerror}") from error


def _who(env: Env) -> tuple[bytes, bytes]:
    return env.get(b"USER", b"?"), env.get(b"TCPREMOTEIP", b"?")


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    """One session, from the greeting after login to its end."""
    if privs.is_root():
        log.fatal(NAME, "refusing to serve as root")
        return REFUSED
    channel, started_s = Channel(0, 1, _timeout_s(env)), time.monotonic()
    journal = log.Journal(NAME)
    try:
        drop, lock = _open(argv)
    except _Closed as closed:
        journal.note(b"refused user=%b ip=%b why=%b", *_who(env), closed.why.encode("utf-8", "surrogateescape"))
        journal.write()
        _answer(channel, b"-ERR " + closed.answer + b"\r\n")
        return errors.OK
    session = Session(channel, drop, lock)
    how = b"bug"
    try:
        how = session.run()
    finally:
        session.unlock()
        seconds = b"%.3f" % (time.monotonic() - started_s)
        journal.note(
            b"end user=%b ip=%b how=%b retrieved=%b removed=%b left=%b out=%b seconds=%b",
            *(*_who(env), how, *session.tally(), seconds),
        )
        journal.write()
    channel.hang_up()
    return errors.OK


def _answer(channel: Channel, line: bytes) -> None:
    try:
        channel.write(line)
        channel.hang_up()
    except Gone:
        pass  # it no longer wants to know
