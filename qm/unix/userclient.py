"""The only client of userd: who has a mailbox here, who may log in, and send what (docs/INTERNALS.md 1.7)."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final, Self, TypeVar, overload

from qm.errors import Temporary
from qm.unix import fds
from qm.wire.envelope import ADDRESS_MAX
from qm.wire.record import Malformed
from qm.wire.userquery import (
    COUNT_MAX,
    AskExists,
    AskLogin,
    AskMechanisms,
    AskScram,
    AskSender,
    AskSpend,
    Exists,
    Later,
    Login,
    LoginAnswer,
    Method,
    Question,
    Refused,
    ScramAnswer,
    Spent,
    Verdict,
    marks,
    pack_question,
    unpack_exists,
    unpack_login,
    unpack_mechanisms,
    unpack_scram,
    unpack_spent,
)

__all__ = [
    "SOCKET", "AskLogin", "AskScram", "Exists", "Later", "Login", "LoginAnswer", "Method", "Refused", "ScramAnswer",
    "Spent", "UserClient", "Verdict",
]  # fmt: skip

T = TypeVar("T")

SOCKET: Final = "users/socket"
FIELDS_MAX: Final = 32768  # bytes of a name, a secret and a challenge; well under RECORD_MAX
TIMEOUT_S: Final = 40.0  # longer than control/timeoutlogin; a check takes 50 ms, but there may be many at once


class _Dead(Exception):
    """The connection that we had kept is no more; nothing was answered on it."""


def _short(field: bytes) -> bytes:
    """*field*, if userd can be asked with it: there is no such name or address otherwise."""
    return b"" if b"\0" in field or len(field) > ADDRESS_MAX else field


class UserClient:
    """Ask userd; keeps one connection, made when it is first needed, so that it may be made before a fork.

    *path* is relative to the home, which must be the current directory whenever a connection is made.
    """

    def __init__(self, path: str = SOCKET, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._channel: socket.socket | None = None

    def exists(self, address: bytes) -> Exists:
        """Whether mail for *address* would be taken: a verdict and, unless it is YES, a text for the peer.

        Raises Temporary if userd cannot be asked, as all of these do.
        """
        if b"\0" in address or len(address) > ADDRESS_MAX:
            return Exists(Verdict.NO, b"no mailbox here by that name")
        return self._ask(AskExists(address), unpack_exists)

    @overload
    def answer(self, question: AskLogin) -> LoginAnswer: ...

    @overload
    def answer(self, question: AskScram) -> ScramAnswer: ...

    def answer(self, question: AskLogin | AskScram) -> LoginAnswer | ScramAnswer:
        """What userd says to a question about a login: who it is, or Refused, or Later when userd cannot tell now."""
        if isinstance(question, AskScram):
            return self._ask(question._replace(name=_short(question.name)), unpack_scram)
        fields = b"".join((question.name, question.secret, question.challenge))
        if b"\0" in fields or len(fields) > FIELDS_MAX:
            return Refused(b"wrong name or password")
        return self._ask(question._replace(address=_short(question.address)), unpack_login)

    def mechanisms(self) -> tuple[bytes, ...]:
        """The SASL mechanisms that the stores of passwords can serve."""
        return self._ask(AskMechanisms(), unpack_mechanisms).names

    def sender(self, login: Login, address: bytes) -> Exists:
        """Whether *login* may write mail from *address*."""
        if b"\0" in address or len(address) > ADDRESS_MAX:
            return Exists(Verdict.NO, b"not your address")
        return self._ask(AskSender(login.name, login.uid, login.home, address), unpack_exists)

    def spend(self, login: Login, recipients: int, domains: Collection[bytes]) -> Spent:
        """Count one message of *login* to so many recipients in *domains*; LATER if that is over a limit an hour."""
        return self._ask(AskSpend(login.name, min(recipients, COUNT_MAX), marks(domains)), unpack_spent)

    def _ask(self, question: Question, unpack: Callable[[bytes], T]) -> T:
        try:
            return unpack(self._answer_to(question))
        except Malformed as error:
            raise self._trouble(str(error)) from error

    def _answer_to(self, question: Question) -> bytes:
        """Its answer; what userd did not answer before it died is asked again."""
        record = pack_question(question)
        if self._channel is not None:
            try:
                return self._exchange(self._channel, record)
            except _Dead:
                pass  # userd was restarted, or needed the room
        try:
            return self._exchange(self._connect(), record)
        except _Dead as error:
            raise self._trouble("userd has closed the connection; does it know our uid?") from error

    def _connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limit = struct.pack("@ll", int(self._timeout_s), int(self._timeout_s % 1 * 1e6))
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)  # connect(2) keeps it too
        try:
            channel.connect(self._path)
        except OSError as error:
            channel.close()
            raise self._trouble(f"{error.strerror}; is qm-userd running?") from error
        self._channel = channel
        return channel

    def _exchange(self, channel: socket.socket, record: bytes) -> bytes:
        """Send and receive; a connection on which that fails is not used again, or an answer might come late."""
        try:
            fds.send_record(channel, record)
            answer, descriptors = fds.recv_record(channel)
        except OSError as error:
            self.close()
            if error.errno == errno.EAGAIN:
                raise self._trouble(f"no answer within {self._timeout_s:.0f} s") from error
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise _Dead from error
            raise self._trouble(os.strerror(error.errno or 0)) from error
        fds.close_all(descriptors)
        if not answer:
            self.close()
            raise _Dead
        return answer

    def _trouble(self, why: str) -> Temporary:
        self.close()
        return Temporary("cannot look up users now", detail=f"{self._path}: {why}")

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
