"""What qm-tcpto and qm-tcpok say to rspawn, about addresses that do not answer: one question, one answer.

``known`` is answered with a line for each address: itself, how often it has timed out, how many seconds ago the last
time was.  ``clear`` forgets them, and is answered with how many they were.  rspawn reads what strangers say, so its
answer is checked like theirs.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from qm.wire.record import Malformed, number, pack, unpack

SOCKET: Final = "run/rspawn"
KNOWN: Final = b"known"
CLEAR: Final = b"clear"
_ADDRESS: Final = re.compile(rb"[0-9A-Fa-f.:]{2,45}")
_NUMBER_MAX: Final = (1 << 62) - 1


class Silent(NamedTuple):
    address: bytes
    times: int
    ago_s: int


def pack_known(known: Iterable[Silent]) -> bytes:
    return pack(b"\n".join(b"%b %d %d" % one for one in known))


def _silent(line: bytes) -> Silent:
    address, _, rest = line.partition(b" ")
    times, _, ago_s = rest.partition(b" ")
    if not _ADDRESS.fullmatch(address):
        raise Malformed("not an address")
    return Silent(address, number(times, _NUMBER_MAX), number(ago_s, _NUMBER_MAX))


def unpack_known(record: bytes) -> list[Silent]:
    """Raises Malformed."""
    (text,) = unpack(record, 1)
    return [_silent(line) for line in text.split(b"\n")] if text else []


def pack_cleared(count: int) -> bytes:
    return pack(b"%d" % count)


def unpack_cleared(record: bytes) -> int:
    """Raises Malformed."""
    return number(unpack(record, 1)[0], _NUMBER_MAX)
