"""What a POP3 client wants to be let in with: as the halves of popup tell one another, and as a checkpassword reads it.

The half that talks to the network says one of Left, Stls, Failed and Login (`pack_report`); nothing else is believed.
"""

from typing import Final, NamedTuple

from qm.wire.record import Malformed, number, pack, unpack
from qm.wire.saslstep import Fault, Refusal
from qm.wire.userquery import COUNT_MAX, AskLogin, Method

RECORD_MAX: Final = 512  # bytes that any checkpassword reads (qmail.md 16.5)
LONG_MAX: Final = 24576  # bytes that ours reads: a token, or SCRAM's messages, which have their own limits
PASS: Final = b"PASS"
APOP: Final = b"APOP"

METHODS: Final[dict[bytes, Method]] = {  # as the record has them; the first two are qmail's words
    PASS: Method.PASSWORD,
    APOP: Method.APOP,
    **{method.value: method for method in Method if method not in (Method.PASSWORD, Method.APOP)},
}
_WORDS: Final = {method: word for word, method in METHODS.items()}


class Login(NamedTuple):
    """An attempt to log in."""

    method: bytes  # of METHODS
    name: bytes  # empty where a token or a certificate tells
    secret: bytes  # the password, or what proves that the client knows it; empty for a certificate
    challenge: bytes = b""  # what the secret answers: APOP's banner, or as qm.wire.userquery.Method says

    def __repr__(self) -> str:
        return f"Login({self.method!r}, {self.name!r})"  # the secret is for nobody's log


class Left(NamedTuple):
    """Nobody wants to log in any more."""


class Stls(NamedTuple):
    """The client wants TLS, and waits."""


class Failed(NamedTuple):
    """An AUTH has come to nothing before anybody was asked to let the client in."""

    later: bool  # the password was not looked at
    delay_s: int


Report = Left | Stls | Failed | Login


def asked(question: AskLogin) -> Login:
    """What SASL wants to know, as an attempt."""
    return Login(_WORDS[question.method], question.name, question.secret, question.challenge)


def failed(refusal: Refusal) -> Failed:
    return Failed(refusal.fault is not Fault.WRONG, refusal.delay_s)


def pack_report(report: Report) -> bytes:
    """Raises ValueError if a field holds a NUL."""
    match report:
        case Login():
            return pack(b"login", *report)
        case Failed():
            return pack(b"failed", b"%d" % report.later, b"%d" % report.delay_s)
        case Stls():
            return pack(b"stls")
        case Left():
            return pack(b"left")


def unpack_report(record: bytes) -> Report:
    """Raises Malformed."""
    if record in (b"left\0", b"stls\0"):
        return Left() if record == b"left\0" else Stls()
    if record.startswith(b"failed\0"):
        _, later, delay_s = unpack(record, 3)
        return Failed(number(later, 1) > 0, number(delay_s, COUNT_MAX))
    kind, *fields = unpack(record, 5)
    login = Login(*fields)
    if kind != b"login" or login.method not in METHODS:
        raise Malformed("not a report")
    return login


def record_max(method: bytes) -> int:
    """How long the record may be: qmail's methods fit any checkpassword."""
    return LONG_MAX if method in METHODS and method not in (PASS, APOP) else RECORD_MAX


def checkpassword_record(login: Login, banner: bytes) -> bytes:
    """What a checkpassword reads (qmail.md 16.5), or b"" if that would be too long, or a field is missing or has a NUL.

    The method is ours, in the place of "more data": it tells a password from a digest without a guess.  Methods that
    are not qmail's are for our checkpassword, which reads more.
    """
    old = login.method in (PASS, APOP)
    if not (login.secret or login.method == Method.EXTERNAL.value) or (old and not login.name):
        return b""
    fields = (login.name, login.secret, banner if old else login.challenge, login.method)
    record = b"\0".join(fields) + b"\0"
    fits = len(record) <= record_max(login.method) and record.count(b"\0") == len(fields)
    return record if fits else b""
