"""What the name of a file in a Maildir tells: its identity, its age, its size on the wire.

A path is ``new/NAME`` or ``cur/NAME``; the part of NAME before the colon is the unique name and never changes, what
follows are flags.  ``,W=N`` is the size with two bytes for each line end, as qm.disk.maildir and others write it.
"""

import re
from hashlib import blake2b
from typing import Final

_OURS: Final = re.compile(rb"[0-9]+\.Q[0-9a-z]+R[0-9]+L[0-9]+\.")  # qm.disk.maildir.unique
_WIRE_SIZE: Final = re.compile(rb",W=([0-9]{1,15})(?=,|\Z)")
_UIDL: Final = re.compile(rb"[!-~]{1,70}")  # RFC 1939 7


def unique(path: bytes) -> bytes:
    return path[4:].partition(b":")[0]


def born_at_s(path: bytes) -> int | None:
    """The time that the name begins with, None if it begins otherwise."""
    digits = path[4:].partition(b".")[0]
    return int(digits) if digits.isdigit() and len(digits) < 20 else None


def wire_size(path: bytes) -> int | None:
    """What ,W= says; None if the name has none."""
    told = _WIRE_SIZE.search(unique(path))
    return int(told[1]) if told else None


def uidl(unique_name: bytes) -> bytes:
    """POP3's unique-id, the same for ever: the unique name, without the sizes if it is ours.

    A hash of it where RFC 1939 7 forbids such a name: too long, or with other bytes than 0x21 to 0x7E.
    """
    name = unique_name.partition(b",")[0] if _OURS.match(unique_name) else unique_name
    if _UIDL.fullmatch(name):
        return name
    return blake2b(name, digest_size=20).hexdigest().encode()
