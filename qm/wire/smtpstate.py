"""What an SMTP client may say when (RFC 5321 4.1.4): the tables of qm.wire.smtp."""

from enum import IntEnum
from typing import Final, NamedTuple

from qm.wire.smtpevent import Auth, End, Hello, Mail, Noop, Piece, Quit, Rcpt, Reset, Start, StartTls
from qm.wire.smtpreply import Reply


class State(IntEnum):
    IDLE = 1
    MAIL = 2  # there is a sender
    RCPT = 3  # there is a recipient
    BDAT = 4  # between two chunks


# What is not named here is legal in every state.  A second MAIL begins anew, as in qmail (qmail.md 15.4).
LEGAL: Final = {
    Mail: frozenset((State.IDLE, State.MAIL, State.RCPT)),
    Rcpt: frozenset((State.MAIL, State.RCPT)),
    Start: frozenset((State.RCPT,)),
    StartTls: frozenset((State.IDLE, State.MAIL, State.RCPT)),
    Auth: frozenset((State.IDLE,)),  # RFC 4954 4
}
EVER: Final = frozenset(State)

# What answers nothing here leaves the state.  A message ends its transaction, whatever is answered.
AFTER: Final = {
    Hello: State.IDLE,
    Mail: State.MAIL,
    Rcpt: State.RCPT,
    Piece: State.BDAT,
    End: State.IDLE,
    Reset: State.IDLE,
}


class Bar(NamedTuple):
    """What a client must do before anything else: commands but those of *free* are answered *reply*."""

    reply: Reply
    free: frozenset[type]


BEFORE_TLS: Final = Bar(
    Reply(530, b"5.7.0", b"must issue a STARTTLS command first"),  # RFC 3207 4
    frozenset((Hello, Noop, Quit, StartTls)),
)
BEFORE_AUTH: Final = Bar(
    Reply(530, b"5.7.0", b"authentication required"),  # RFC 4954 6
    frozenset((Hello, Noop, Quit, Reset, StartTls, Auth)),
)
