"""POP3 server protocol, sans-IO: the AUTHORIZATION state (RFC 1939 4 and 7).

It ends with a Login, whose answer is another process's business, or with Signal.EOF.  A command must be consumed from
the network only up to its line end: what a client pipelines after a login belongs to whoever serves the mailbox.
"""

from typing import Final, NamedTuple

from qm.wire.pop3 import Dialogue, Signal
from qm.wire.record import Malformed, unpack

RECORD_MAX: Final = 512  # bytes that a checkpassword reads (qmail.md 16.5)

_MAILBOX_VERBS: Final = frozenset((b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"RSET", b"LAST"))


class Login(NamedTuple):
    """What a client wants to be let in with; *secret* is the password, or APOP's hex digest."""

    method: bytes  # PASS or APOP
    name: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Login({self.method!r}, {self.name!r})"  # the secret is for nobody's log


def checkpassword_record(login: Login, banner: bytes) -> bytes:
    """What a checkpassword reads (qmail.md 16.5), or b"" if that would be too long or a field holds a NUL.

    The method is ours, in the place of "more data": it tells a password from a digest without a guess.
    """
    fields = (login.name, login.secret, banner, login.method)
    record = b"\0".join(fields) + b"\0"
    return record if len(record) <= RECORD_MAX and record.count(b"\0") == len(fields) else b""


def unpack_login(record: bytes) -> Login:
    """What the speaker made by `pack`; raises Malformed."""
    login = Login(*unpack(record, 3))
    if login.method not in (b"PASS", b"APOP") or not login.name or not login.secret:
        raise Malformed("not a login")
    return login


class Authorization(Dialogue):
    """The state before login; *banner* is the APOP timestamp with its angle brackets."""

    def __init__(self, first_line: bytes, banner: bytes, *, offer_apop: bool, errors_max: int) -> None:
        super().__init__(first_line, errors_max)
        self._banner = banner
        self._offer_apop = offer_apop
        self._name = b""

    def next_event(self) -> Login | Signal:
        while True:
            line = self._next_line()
            if isinstance(line, Signal):
                return line
            login = self._parse(line)
            if login is not None:
                return login

    def _parse(self, line: bytes) -> Login | None:
        """*line* as an attempt to log in; None if it has been answered already."""
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        if verb == b"USER":
            self._user(argument.strip(b" "))
        elif verb == b"PASS":
            return self._password(argument)
        elif verb == b"APOP" and self._offer_apop:
            return self._apop(argument)
        elif verb == b"QUIT":
            self._put(b"+OK", b"goodbye")
            self._over = True
        elif verb in _MAILBOX_VERBS:
            self._refuse(b"log in first")
        else:
            self._common(verb, argument)
        return None

    def _user(self, name: bytes) -> None:
        """Any name is fine here, so that nobody learns which ones exist."""
        if not name:
            self._refuse(b"USER needs a name")
            return
        self._name = name
        self._put(b"+OK", b"")

    def _password(self, password: bytes) -> Login | None:
        """All that follows one space is the password, blanks too (RFC 1939 7, PASS)."""
        if not self._name:
            self._refuse(b"USER first")
            return None
        return self._checked(Login(b"PASS", self._name, password))

    def _apop(self, argument: bytes) -> Login | None:
        name, _, digest = argument.strip(b" ").partition(b" ")
        if not name or not digest:
            self._refuse(b"APOP needs a name and a digest")
            return None
        return self._checked(Login(b"APOP", name, digest))

    def _checked(self, login: Login) -> Login | None:
        if not login.secret or not checkpassword_record(login, self._banner):
            self._refuse(b"[AUTH] no name and password look like that")
            return None
        return login
