"""Judges of passwords that are none of ours: PAM, and checkpassword programs (lines of control/logins).

PAM's modules and such programs must be root to do their work; so they are, in a worker that has nothing else.  What
comes from the network it hands on, and looks at nothing of it.  A program that says yes runs ``env -0`` as the user, as
it would run a POP3 server (qmail.md 16.5): that tells USER and HOME, and the kernel tells the uid of who writes.
"""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from qm.errors import TEMPORARY, Temporary
from qm.unix import chain, fds, privs
from qm.unix.program import unforeseen
from qm.unix.spawner import Work
from qm.wire.record import number, pack
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused, pack_login

SERVICE: Final = b"qm"  # /etc/pam.d/qm
REPORTER: Final = (b"env", b"-0")
RECORD_MAX: Final = 512  # bytes that a checkpassword reads
TOKEN_MAX: Final = 12288  # bytes that one for tokens reads
REPORT_MAX: Final = 65536  # bytes of an environment
LIMIT_MAX_S: Final = 3600
NOT_NOW: Final = Later(b"cannot check passwords now")
_WRONG: Final = Refused(b"wrong name or password")
_REFUSED: Final = 1  # a checkpassword's exit code
_UCRED: Final = struct.Struct("@iII")  # pid, uid, gid; unix(7)


class _Report(NamedTuple):
    """What the program run by a program has written, and who wrote it."""

    text: bytes
    uid: int
    gid: int


def job(question: AskLogin, argv: Sequence[bytes], limit_s: int) -> bytes:
    """What a worker is asked; without *argv* PAM is the judge."""
    fields = (question.method.value, question.name, question.secret, question.address)
    return pack(b"%d" % max(1, min(limit_s, LIMIT_MAX_S)), *fields, *argv)


def enter_judging(key: None) -> Work:
    """In the fresh worker, which stays who userd is."""
    return _work


def enter_tokens(key: None) -> Work:
    """In the fresh worker: a token needs no right of anybody to be looked at."""
    privs.become(privs.role("qmailp"))
    return _work


def _work(record: bytes, descriptors: object) -> bytes:
    limit, method, name, secret, address, *argv = record.split(b"\0")[:-1]
    limit_s = number(limit, LIMIT_MAX_S)
    try:
        if argv:
            return pack_login(_ask_program(argv, Method(method), name, secret, address, limit_s))
        signal.alarm(limit_s)  # a module that hangs ends this process, and userd sees that
        try:
            return pack_login(_ask_pam(name, secret, address))
        finally:
            signal.alarm(0)
    except Temporary as error:
        return pack_login(Later(str(error).encode("utf-8", "replace")))


def _ask_pam(name: bytes, secret: bytes, address: bytes) -> LoginAnswer:
    from qm.unix import accounts, pam  # in workers only

    found = pam.authenticate(SERVICE, name, secret, address)
    account = accounts.account(found) if found is not None else None
    if account is None or account.uid == 0:
        return _WRONG
    return Login(account.name, account.uid, account.gid, account.home, account.shell, account.name)


def _ask_program(
    argv: Sequence[bytes], method: Method, name: bytes, secret: bytes, address: bytes, limit_s: int
) -> LoginAnswer:
    """What *argv*, a checkpassword, says; raises Temporary."""
    record = b"".join(field + b"\0" for field in (name, secret, b"", b"PASS" if method is Method.PASSWORD else method))
    if len(record) > (RECORD_MAX if method is Method.PASSWORD else TOKEN_MAX):
        return _WRONG
    env = {b"PATH": b"/usr/local/bin:/usr/bin:/bin", b"QMHOME": os.getcwdb(), b"TCPREMOTEIP": address}
    ours, theirs = socket.socketpair()
    with ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            pid = _start([*argv, *REPORTER], env, record, theirs)
        finally:
            theirs.close()
        deadline_s = time.monotonic() + limit_s
        report = _read(ours, deadline_s)
    code = _end(pid, 0.0 if report is None else deadline_s)
    if report is not None and code == 0 and report.text:
        return _login(report, name)
    if report is not None and code == _REFUSED:
        return _WRONG
    why = f"ended with {code}" if report is not None else "has not ended in time, or said too much"
    raise Temporary("cannot check this password now", detail=f"{os.fsdecode(argv[0])} {why}")


def _start(argv: Sequence[bytes], env: dict[bytes, bytes], record: bytes, output: socket.socket) -> int:
    """The pid of a child that becomes *argv*, a process group of its own; raises Temporary."""
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, record)  # it fits
        os.close(writer)
        pid = os.fork()
    except OSError as error:
        raise Temporary("cannot start a program", detail=str(error.strerror)) from error
    if pid == 0:
        _become(argv, env, reader, output)
    os.close(reader)
    return pid


def _become(argv: Sequence[bytes], env: dict[bytes, bytes], reader: int, output: socket.socket) -> NoReturn:
    try:
        os.setsid()
        fds.place({1: output.fileno(), 3: reader})
        fds.close_from(4)
        chain.execute(argv, env)
    except BaseException as error:  # a forked child must never run on in its parent's frames
        unforeseen(argv[0], error)
    finally:
        os._exit(TEMPORARY)


def _read(ours: socket.socket, deadline_s: float) -> _Report | None:
    """All that is written until the end, by one user; None if that takes too long, or is too much."""
    text, writer = b"", (0, 0)
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    while len(text) <= REPORT_MAX:
        if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            return None
        piece, ancillary, _, _ = ours.recvmsg(REPORT_MAX, socket.CMSG_SPACE(_UCRED.size))
        if not piece:
            return _Report(text, *writer)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                _, uid, gid = _UCRED.unpack(data)
                if text and (uid, gid) != writer:
                    return None  # two users write: it is no report
                writer = uid, gid
        text += piece
    return None


def _end(pid: int, deadline_s: float) -> int:
    """The child's exit code; negative for a signal, as of one that has not ended at the deadline."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        os.killpg(pid, signal.SIGKILL)  # it has not been waited for, so there is such a group
    os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _login(report: _Report, name: bytes) -> LoginAnswer:
    """Who the environment in *report* says it is."""
    found = dict(pair.partition(b"=")[::2] for pair in report.text.split(b"\0"))
    if report.uid == 0 or not found.get(b"USER"):
        raise Temporary("cannot check this password now", detail="a checkpassword has stayed root, or sets no USER")
    user, home, shell = found[b"USER"], found.get(b"HOME", b"/"), found.get(b"SHELL", b"/bin/sh")
    return Login(user, report.uid, report.gid, home, shell, name.lower() or user)
