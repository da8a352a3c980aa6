"""What is asked of userd, and what it answers (docs/INTERNALS.md 1.7): both sides of users/socket.

A secret is in no repr, since what fails may be printed.
"""

from enum import Enum
from typing import Final, NamedTuple

from qm.wire.assign import ID_MAX
from qm.wire.record import Malformed, number, pack, unpack

_EXISTS: Final = b"exists"
_LOGIN: Final = b"login"


class AskExists(NamedTuple):
    """Would mail for *address* be taken?"""

    address: bytes


class AskLogin(NamedTuple):
    """May *name* log in?

    With a *challenge*, APOP's banner (RFC 1939 section 7), the secret is the digest in hex, else the password.
    """

    name: bytes
    secret: bytes
    challenge: bytes

    def __repr__(self) -> str:
        return f"AskLogin({self.name!r})"


class Verdict(bytes, Enum):
    YES = b"yes"
    NO = b"no"
    LATER = b"later"


class Exists(NamedTuple):
    verdict: Verdict
    text: bytes  # for the peer; empty for YES


class Login(NamedTuple):
    """Yes: who to be, and where."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    shell: bytes


class Refused(NamedTuple):
    why: bytes


class Later(NamedTuple):
    """Nobody can tell now."""

    why: bytes


Question = AskExists | AskLogin
LoginAnswer = Login | Refused | Later


def pack_question(question: Question) -> bytes:
    """Raises ValueError if a field holds a NUL."""
    return pack(_EXISTS if isinstance(question, AskExists) else _LOGIN, *question)


def unpack_question(record: bytes) -> Question:
    """Raises Malformed."""
    kind = record.partition(b"\0")[0]
    if kind == _EXISTS:
        return AskExists(unpack(record, 2)[1])
    if kind == _LOGIN:
        _, name, secret, challenge = unpack(record, 4)
        return AskLogin(name, secret, challenge)
    raise Malformed("not a question")


def pack_exists(answer: Exists) -> bytes:
    return pack(answer.verdict.value, answer.text)


def unpack_exists(record: bytes) -> Exists:
    """Raises Malformed."""
    verdict, text = unpack(record, 2)
    try:
        return Exists(Verdict(verdict), text)
    except ValueError as error:
        raise Malformed("not a verdict") from error


def pack_login(answer: LoginAnswer) -> bytes:
    if isinstance(answer, Login):
        return pack(b"ok", answer.user, b"%d" % answer.uid, b"%d" % answer.gid, answer.home, answer.shell)
    return pack(b"bad" if isinstance(answer, Refused) else b"later", answer.why)


def unpack_login(record: bytes) -> LoginAnswer:
    """Raises Malformed; nobody logs in as uid 0."""
    kind = record.partition(b"\0")[0]
    if kind == b"ok":
        _, user, uid, gid, home, shell = unpack(record, 6)
        login = Login(user, number(uid, ID_MAX), number(gid, ID_MAX), home, shell)
        if login.uid == 0:
            raise Malformed("uid 0")
        return login
    why = unpack(record, 2)[1]
    if kind == b"bad":
        return Refused(why)
    if kind == b"later":
        return Later(why)
    raise Malformed("not an answer")
