"""checkpassword-dovecot: a checkpassword that asks Dovecot whether a password is right, and who the user is.

Usage:   checkpassword-dovecot directory prog [arg ...]
Reads:   fd 3: name NUL secret NUL; auth-client and auth-userdb in directory, which are Dovecot's sockets
Env:     QMHOME, TCPREMOTEIP (for Dovecot); sets USER, HOME and SHELL
Writes:  fd 2 (log)
As:      root until Dovecot has said who it is; Dovecot's answers are read by a child that is qmailp
Exits:   1 refused; 2 no program; 111 cannot tell; after a login what prog exits with
See:     checkpassword-dovecot(8), qm-users(5), qmail.md 16.5
"""

import os
import socket
from collections.abc import Callable
from typing import Final

from qm.errors import Temporary
from qm.unix import checking
from qm.unix.program import Argv, Env, program
from qm.wire import dovecotauth
from qm.wire.record import Malformed
from qm.wire.userquery import LoginAnswer, Refused

RECORD_MAX: Final = 512  # bytes
TIMEOUT_S: Final = 25.0  # for each answer: Dovecot makes an address that has failed often wait for 15 s, and 2 s more
LINES_MAX: Final = 1000  # before an answer
Answer = LoginAnswer | bytes


def _connect(path: bytes) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(TIMEOUT_S)
    try:
        channel.connect(path)
    except OSError as error:
        raise _trouble(f"{os.fsdecode(path)}: {error.strerror}") from error
    return channel


def _trouble(why: str) -> Temporary:
    return Temporary("cannot ask Dovecot", detail=why)


def _ask(channel: socket.socket, question: bytes, answer: Callable[[bytes], Answer | None]) -> Answer:
    """The first line of the reply that *answer* makes something of; raises Temporary."""
    try:
        channel.sendall(question)
        with channel.makefile("rb") as lines:
            for _ in range(LINES_MAX):
                line = lines.readline(dovecotauth.LINE_MAX)
                if not line.endswith(b"\n"):
                    raise _trouble("it has closed the connection")
                found = answer(line[:-1])
                if found is not None:
                    return found
    except OSError as error:
        raise _trouble(error.strerror or "no answer in time") from error
    except Malformed as error:
        raise _trouble(str(error)) from error
    raise _trouble("it says too much")


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 3:
        return checking.MISUSE
    passwords, users = (_connect(os.path.join(argv[1], name)) for name in (b"auth-client", b"auth-userdb"))

    def ask(name: bytes, secret: bytes, address: bytes) -> LoginAnswer:
        if not dovecotauth.is_name(name):
            return Refused(b"wrong name or password")
        question = dovecotauth.password(os.getpid(), name, secret, address)
        answer = _ask(passwords, question, dovecotauth.judged)
        if isinstance(answer, bytes):
            answer = _ask(users, dovecotauth.user(answer or name), dovecotauth.known)
        assert not isinstance(answer, bytes)
        return answer

    return checking.run([argv[0], *argv[2:]], env, RECORD_MAX, ask)
