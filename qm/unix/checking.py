"""What our checkpassword programs for other stores share (qmail.md 16.5): descriptor 3, the question, who to become.

The question is asked by a child that is qmailp: what a directory server sends is not root's to read.  It answers in one
record, after which root becomes the user and runs the program.
"""

import os
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final, NoReturn

from qm.errors import Permanent, QmError, Temporary
from qm.unix import chain, confine, fds, privs, title
from qm.unix.program import Argv, Env, unforeseen
from qm.wire.record import RECORD_MAX, Malformed
from qm.wire.userquery import Later, Login, LoginAnswer, Refused, pack_login, unpack_login

REFUSED: Final = 1
MISUSE: Final = 2
Ask = Callable[[bytes, bytes, bytes], LoginAnswer]  # name, secret, address


class NoEntry(QmError):
    """Why userd lets nobody in, with the seconds that the peer must wait for its answer."""

    def __init__(self, public: str, *, detail: str, delay_s: int) -> None:
        super().__init__(public, detail=detail)
        self.delay_s = delay_s


class Wrong(NoEntry, Permanent):
    """The secret is not right, or nobody's."""


class Locked(NoEntry, Temporary):
    """There were too many failures, and nobody has looked at the secret."""


def is_here(host: str) -> bool:
    """Whether *host* is this machine, so that a secret may go there as it is: no network is between."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_record(most: int) -> bytes:
    """What is on descriptor 3, which is closed; one byte more than *most* tells that there is too much."""
    record = b""
    try:
        while len(record) <= most and (piece := os.read(3, most + 1 - len(record))):
            record += piece
        os.close(3)
    except OSError as error:
        raise Temporary("login failed", detail=f"descriptor 3: {error.strerror}") from error
    return record


def credentials(most: int) -> Sequence[bytes]:
    """The fields on descriptor 3: name and secret, perhaps more; raises Permanent, Temporary."""
    record = read_record(most)
    fields = record.split(b"\0")[:-1]
    if len(record) > most or len(fields) < 2 or not fields[1]:
        raise Permanent("login refused", detail=f"not name NUL secret NUL, or over {most} bytes")
    return fields


def run(argv: Argv, env: Env, most: int, ask: Ask) -> int:
    """Ask, become who that is, and run what follows in *argv*; the exit code if there is nobody to become."""
    try:
        who, secret, *_ = credentials(most)
        answer = apart(lambda: ask(who, secret, env.get(b"TCPREMOTEIP", b"")))
        if isinstance(answer, Refused):
            return REFUSED
        if isinstance(answer, Later):
            raise Temporary("cannot check the password now", detail=os.fsdecode(answer.why))
        become(answer)
    except Permanent:
        return REFUSED
    login_env = {**env, b"USER": answer.user, b"HOME": answer.home, b"SHELL": answer.shell}
    title.show(argv[1:])
    return chain.prepare(argv[1:], env)(login_env)


def become(login: Login) -> None:
    """Be the user for good, in his home, which may lie below a directory that he cannot search; raises Temporary."""
    entered = privs.is_root() and _entered(login.home)
    privs.become(privs.Ids(login.uid, login.gid))
    try:
        if not entered:
            os.chdir(login.home)
    except OSError as error:
        where = f"{os.fsdecode(login.home)}: {error.strerror}"
        raise Temporary("cannot enter the home directory", detail=where) from error


def _entered(home: bytes) -> bool:
    """Whether we could enter *home* as who we are; root may not, where a file server does not trust it."""
    try:
        os.chdir(home)
    except OSError:
        return False
    return True


def apart(ask: Callable[[], LoginAnswer]) -> LoginAnswer:
    """What *ask* answers in a child that is qmailp; raises Temporary if it cannot be told."""
    ids = privs.role("qmailp")
    ours, theirs = fds.pair()
    pid = os.fork()
    if pid == 0:
        _answer(ids, ask, theirs.fileno())
    theirs.close()
    with ours:
        record, descriptors = fds.recv_record(ours, RECORD_MAX)
    fds.close_all(descriptors)
    os.waitpid(pid, 0)
    try:
        return unpack_login(record)
    except Malformed as error:
        raise Temporary("cannot check the password now", detail="the process that asked has failed") from error


def _answer(ids: privs.Ids, ask: Callable[[], LoginAnswer], output: int) -> NoReturn:
    """In the child."""
    try:
        privs.become(ids)
        confine.gain_nothing()
        title.job(b"checkpassword", b"asks who that is")
        try:
            answer = ask()
        except Temporary as error:
            answer = Later(str(error).encode("utf-8", "replace"))
        os.write(output, pack_login(answer))
    except BaseException as error:  # a forked child must never run on in its parent's frames
        unforeseen(b"checkpassword", error)
    finally:
        os._exit(0)
