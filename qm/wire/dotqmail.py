"""The language of .qmail files: what they are called, and what their lines say (qmail.md 13.2, 13.3).

A file is read whole before its first line counts, so that one that cannot be obeyed to its end delivers nothing and is
tried again when its owner has mended it; qmail would repeat the lines before the bad one at each try.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.wire.envelope import ADDRESS_MAX

SIZE_MAX: Final = 4 * 1024 * 1024  # bytes of one file; some 100,000 forwards
_DEFAULT: Final = b"default"


class Kind(Enum):
    MAILDIR = b"maildir"
    MBOX = b"mbox"
    PROGRAM = b"program"
    FORWARD = b"forward"


class Instruction(NamedTuple):
    kind: Kind
    argument: bytes  # a path, a shell command or an address
    line: int  # counted from 1


class Candidate(NamedTuple):
    name: bytes
    default: bytes | None  # what DEFAULT is if this file is the one


def _stem(dash: bytes, ext: bytes) -> bytes:
    """``.qmail`` and the extension, which can name no other directory: it loses its dots."""
    return b".qmail" + dash + ext.lower().replace(b".", b":")


def candidates(dash: bytes, ext: bytes) -> Iterator[Candidate]:
    """The names that are tried for an extension, in order."""
    stem = _stem(dash, ext)
    yield Candidate(stem, ext[-len(_DEFAULT) :] if stem.endswith(_DEFAULT) and len(ext) >= len(_DEFAULT) else None)
    prefix = len(stem) - len(ext)
    for length in range(len(ext), -1, -1):
        if length == 0 or ext[length - 1] == ord("-"):
            yield Candidate(stem[: prefix + length] + _DEFAULT, ext[length:])


def owner_names(dash: bytes, ext: bytes) -> tuple[bytes, bytes]:
    """The two files that say who gets the bounces of forwards (qmail.md 13.4)."""
    stem = _stem(dash, ext)
    return stem + b"-owner", stem + b"-owner-default"


def _bad(line: int, why: str, status: str = "2.1") -> Temporary:
    return Temporary(f"Line {line} of the .qmail file {why}.", status=status)


def _instruction(text: bytes, line: int, forward_only: bool) -> Instruction:
    kind, argument = Kind.FORWARD, text
    if text.startswith((b".", b"/")):
        kind = Kind.MAILDIR if text.endswith(b"/") else Kind.MBOX
    elif text.startswith(b"|"):
        kind, argument = Kind.PROGRAM, text[1:]
    elif text.startswith(b"&"):
        argument = text[1:]
    if kind is not Kind.FORWARD:
        if forward_only:
            raise _bad(line, "is not a forward, but the file may only forward (x bit or +list)", "7.0")
    elif not 0 < len(argument) <= ADDRESS_MAX:
        raise _bad(line, f"forwards to an address of {len(argument)} bytes")
    return Instruction(kind, argument, line)


def parse(text: bytes, *, forward_only: bool) -> tuple[Instruction, ...]:
    """What a file says to do, in order.  *forward_only*: the file's owner execute bit.

    Raises Temporary, naming the line, for a file that cannot be obeyed to its end.
    """
    instructions = []
    for line, raw in enumerate(text.removesuffix(b"\n").split(b"\n"), 1):
        content = raw.rstrip(b" \t")
        if not content:
            if line == 1:
                raise _bad(line, "is blank")
        elif content.startswith(b"+"):
            forward_only = forward_only or content == b"+list"
        elif not content.startswith(b"#"):
            if b"\0" in content:
                raise _bad(line, "has a NUL byte")
            if content.endswith(b"\r"):
                raise _bad(line, "has a DOS line end")
            instructions.append(_instruction(content, line, forward_only))
    return tuple(instructions)
