"""An mbox taken apart: where its messages begin, and their bytes without what mboxrd puts before them.

A message begins with a From_ line at the beginning of the file or behind an empty line.  That empty line, and the one
at the end of the file, belong to no message.  Of lines that match ``>+From `` one ``>`` is taken off.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

LINE_MAX: Final = 1024 * 1024  # bytes of a From_ line; other lines may come in pieces
_QUOTED: Final = re.compile(rb">+From ")
_MARK: Final = re.compile(rb"(x-)?status:[ \t]*([A-Za-z]*)[ \t]*\r?\n?", re.IGNORECASE)
_FLAGS: Final = {b"R": b"S", b"A": b"R", b"F": b"F", b"D": b"T", b"T": b"D"}  # of Status and X-Status, as in Maildirs
HEADER_MAX: Final = 65536  # bytes in which a Status field counts


class NoMbox(ValueError):
    """Text that does not begin with a From_ line."""


def split(lines: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Pairs: True and a From_ line, which begins a message; False and bytes of it.

    *lines* are cut behind each LF, and may be cut in between.  Raises NoMbox.
    """
    begins, expects, held = True, True, b""  # at a line's begin; a From_ line here is one; an empty line, kept back
    seen = False
    for line in lines:
        if begins and expects and line.startswith(b"From "):
            held, expects, seen = b"", False, True
            yield True, line
        elif not seen:
            raise NoMbox("it does not begin with a From_ line")
        else:
            if held:
                yield False, held
            held = line if begins and line == b"\n" else b""
            expects = bool(held)
            if not held:
                yield False, line[1:] if begins and _QUOTED.match(line) else line
        begins = line.endswith(b"\n")


def flags(header: bytes) -> tuple[bool, bytes]:
    """Whether its reader has seen that the message is there, and a Maildir's flags, by Status and X-Status."""
    letters: set[bytes] = set()
    known = False
    for line in header.partition(b"\n\n")[0].splitlines(keepends=True):
        match = _MARK.fullmatch(line)
        if match:
            known = True
            letters.update(bytes((byte,)) for byte in match[2].upper() if match[1] or byte in b"RO")
    return known, b"".join(sorted(_FLAGS[letter] for letter in letters if letter in _FLAGS))
