"""qm-queue's exit codes: how the queue says whether it has taken a message (qmail.md section 5).

The same numbers go over the queue's door, and each has a text for the message's sender and an enhanced status code.
"""

from typing import Final

from qm.errors import Permanent, Temporary

QUEUED: Final = 0
TOO_LONG: Final = 11  # an address
REFUSED: Final = 31
MEMORY: Final = 51
TIMEOUT: Final = 52
WRITE: Final = 53
READ: Final = 54
CONFIGURATION: Final = 55
UNREACHABLE: Final = 56
HOME: Final = 61
QUEUE: Final = 62
TMP: Final = 63
NEW: Final = 66
BUSY: Final = 71
LOST: Final = 74
BUG: Final = 81
CUSTOM: Final = 82  # of a QMAILQUEUE: the text is on descriptor 6
FORMAT: Final = 91
CANNOT_RUN: Final = 120

TEXTS: Final[dict[int, str]] = {
    TOO_LONG: "an address is too long",
    REFUSED: "the queue refuses this message",
    MEMORY: "the queue is out of memory",
    TIMEOUT: "the queue has waited too long for this message",
    WRITE: "the queue cannot write, perhaps its disk is full",
    READ: "the message or its envelope ended too early",
    UNREACHABLE: "the queue is out of reach",
    HOME: "the queue's home directory is out of order",
    QUEUE: "the queue's directory is out of order",
    TMP: "the queue cannot make a file",
    NEW: "the queue cannot file the message",
    BUSY: "the queue has too many messages of this user under way",
    LOST: "the queue broke off; whether it has the message is not known",
    BUG: "the queue has a bug",
    FORMAT: "the queue was asked in a wrong format",
    CANNOT_RUN: "the queue's program cannot be run",
}

_STATUS: Final = {TOO_LONG: "1.3", 115: "1.3", 72: "4.1", 73: "4.1", LOST: "4.2"}


def permanent(code: int) -> bool:
    """Whether the same message would be refused again."""
    return 11 <= code <= 40 or code == 115


def text(code: int) -> str:
    return TEXTS.get(code, "the queue refuses this message" if permanent(code) else "the queue is in trouble")


def status(code: int) -> str:
    """The enhanced status code without its class digit (RFC 3463)."""
    return _STATUS.get(code, "3.0")


class Deferred(Temporary):
    """The queue has not taken the message now, or we cannot know; *code* is qm-queue's exit code."""

    code: int = BUG


class Refused(Permanent):
    """The queue will never take this message."""

    code: int = REFUSED


def failure(code: int, detail: str | None = "") -> Deferred | Refused:
    """The exception for an exit code of the queue."""
    kind = Refused if permanent(code) else Deferred
    error = kind(text(code), detail=detail or "", status=status(code))
    error.code = code
    return error
