"""Records between our programs: NUL-terminated fields in one datagram.

A field is bytes without NUL.  Whoever reads a record says how many fields it has; anything else is Malformed,
since the writer may be a program that someone has taken over.
"""

from collections.abc import Sequence
from typing import Final

RECORD_MAX: Final = 65536  # bytes of a datagram between programs; the queue's door has its own


class Malformed(ValueError):
    """A record that our own programs would not have written."""


def pack(*fields: bytes) -> bytes:
    """Join *fields*; raises ValueError if one holds a NUL."""
    record = b"\0".join(fields) + b"\0"
    if record.count(b"\0") != len(fields):
        raise ValueError("NUL in a record's field")
    return record


def unpack(record: bytes, count: int) -> Sequence[bytes]:
    """Split *record* into exactly *count* fields, or raise Malformed."""
    fields = record.split(b"\0")
    if len(fields) != count + 1 or fields[-1]:
        raise Malformed(f"{len(fields) - 1} fields where {count} belong")
    return fields[:-1]


def number(field: bytes, most: int) -> int:
    """A field of ASCII decimal digits up to *most*, or Malformed."""
    if not (field.isdigit() and len(field) <= 20):
        raise Malformed("not a number")
    value = int(field)
    if value > most:
        raise Malformed("number too large")
    return value
