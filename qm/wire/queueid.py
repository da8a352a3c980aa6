"""Queue IDs: the one name of a message, in every log line, Received field and reply.

An ID is 13 characters of time in nanoseconds and 5 of process number, base 32 in the order of ASCII, so that IDs sort
by age.  A process must not make two of the same time (qm.disk.queuefile sees to that).  What qm itself derives from
a message has the message's ID and a letter: ``b`` is its bounce, ``bb`` the bounce's bounce.
"""

import re
from typing import Final

_ALPHABET: Final = b"0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_TIME_LENGTH: Final = 13  # 65 bits: past the year 2500
_PID_LENGTH: Final = 5  # 25 bits: Linux has pids of up to 22
_VALID: Final = re.compile(rb"[0-9a-hjkmnp-tv-z]{18}[bds]{0,3}")


def _base32(number: int, length: int) -> bytes:
    return bytes([_ALPHABET[(number >> shift) & 31] for shift in range(5 * (length - 1), -1, -5)])


def make(time_ns: int, pid: int) -> bytes:
    """The ID of a message born at *time_ns* in process *pid*."""
    return _base32(time_ns, _TIME_LENGTH) + _base32(pid, _PID_LENGTH)


def valid(name: bytes) -> bool:
    return _VALID.fullmatch(name) is not None


def time_ns(name: bytes) -> int:
    """The birth that a valid ID tells, in ns since 1970."""
    number = 0
    for character in name[:_TIME_LENGTH]:
        number = number << 5 | _ALPHABET.index(character)
    return number


def report_of(name: bytes, letter: bytes) -> bytes:
    """The ID of a report on message *name*; the same at each call, so that a repetition is seen."""
    return name + letter
