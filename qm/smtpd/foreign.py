"""A checkpassword of another maker, named on the command line: it says who may log in (qmail.md 16.5).

It gets name NUL secret NUL NUL on descriptor 3, is run as who we are, and sees nothing of the connection.
"""

import os
from collections.abc import Collection, Sequence
from typing import Final, NoReturn, overload

from qm import errors
from qm.unix import chain, fds, log, oversee
from qm.unix.program import Env
from qm.unix.userclient import Exists, Login, LoginAnswer, Refused, ScramAnswer, Spent
from qm.wire.pop3login import RECORD_MAX
from qm.wire.userquery import AskLogin, AskScram, Later, Verdict

LIMIT_S: Final = 60.0  # then it is killed
WRONG: Final = 1
OUTPUT_MAX: Final = 0  # bytes; nobody wants to know


class Checkpassword:
    """A login.Store whose only answers are yes and no."""

    def __init__(self, argv: Sequence[bytes], env: Env) -> None:
        self._argv = argv
        self._env = env

    def mechanisms(self) -> tuple[bytes, ...]:
        return b"PLAIN", b"LOGIN"

    @overload
    def answer(self, question: AskLogin) -> LoginAnswer: ...

    @overload
    def answer(self, question: AskScram) -> ScramAnswer: ...

    def answer(self, question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
        if isinstance(question, AskScram):
            return Later(b"no SCRAM with this checkpassword")
        record = b"\0".join((question.name, question.secret, b"", b""))
        if record.count(b"\0") != 3 or len(record) > RECORD_MAX:
            return Refused(b"no name and password look like that")
        code = self._run(record)
        if code == errors.OK:
            return Login(question.name, os.geteuid(), os.getegid(), b"", b"", question.name)
        why = f"{os.fsdecode(self._argv[0])}: {'took too long' if code is None else f'exit code {code}'}".encode()
        return Refused(why) if code == WRONG else Later(why)

    def sender(self, login: Login, address: bytes) -> Exists:
        """For submission userd must know who logs in: control/logins can name such a program too."""
        return Exists(Verdict.NO, b"nobody knows whose address that is")

    def spend(self, login: Login, recipients: int, domains: Collection[bytes]) -> Spent:
        return Spent(Verdict.YES, b"")

    def _run(self, record: bytes) -> int | None:
        """Its exit code, negative for a signal; None if it took too long."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        secret, secret_in = os.pipe2(os.O_CLOEXEC)
        try:
            os.write(secret_in, record)  # it fits
            os.close(secret_in)
            pid = os.fork()
            if pid == 0:
                self._become(secret, writer)
            os.close(writer)
            return oversee.wait(pid, oversee.Output(reader, OUTPUT_MAX), LIMIT_S)
        finally:
            fds.close_all((reader, secret))

    def _become(self, secret: int, writer: int) -> NoReturn:
        """In the child."""
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            fds.place({0: null, 1: writer, 3: secret})
            fds.close_from(4)
            chain.execute(self._argv, self._env)
        except OSError as error:
            log.alert(b"qm-smtpd", f"cannot run a checkpassword: {error.strerror}")
        finally:
            os._exit(errors.TEMPORARY)
