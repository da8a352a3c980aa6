"""What a forwarding database says, in the terms of fastforward: targets, and commands for each.

A target is ``user@host``, ``@host`` (anybody there) or ``user@`` (that name at any host).  In the database its key is
``:target``, and its value a run of NUL-terminated commands; ``?target`` has the address that bounces go to.  In text,
for setforward, an instruction is ``target: command, command;``: blanks and line ends count only within double quotes or
after a backslash, and # where a target could begin starts a comment.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from qm.wire.envelope import ADDRESS_MAX

COMMAND_MAX: Final = 65536  # bytes of a program or a file's name
ADDRESS, OWNER = b":", b"?"  # what keys begin with

_TOKEN: Final = re.compile(
    rb'(?P<mark>[:,;])|[ \t\r\n]+|"(?P<quoted>(?>[^"\\]*(?:\\.[^"\\]*)*))"|\\(?P<one>.)|(?P<plain>[^ \t\r\n:,;"\\]+)',
    re.DOTALL,
)
_COMMENT: Final = re.compile(rb"#[^\n]*")
_BACKSLASH: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(rb'[ \t\r\n:,;"\\#]')


class Kind(Enum):
    FORWARD = b"&"
    PROGRAM = b"|"  # gets the message
    PRELINE = b"!"  # gets it behind From_, Return-Path and Delivered-To lines
    FILE = b">"  # an mbox, or a Maildir if it ends with /; fastforward of old had none
    LIST = b""  # a file of setmaillist, whose name begins with . or /


class Command(NamedTuple):
    kind: Kind
    argument: bytes


class Entry(NamedTuple):
    """What is under one key."""

    key: bytes
    commands: tuple[Command, ...]
    line: int


class BadForward(ValueError):
    """Text that is no instruction; begins with its line's number."""


def key(target: bytes, kind: bytes = ADDRESS) -> bytes:
    return kind + target.lower()


def targets(address: bytes) -> tuple[bytes, ...]:
    """What an address is looked for as, in order."""
    local, at, host = address.rpartition(b"@")
    return (address, at + host, local + at) if at else (address,)


def command(text: bytes) -> Command:
    """The command that *text* is, without quotes; raises ValueError for none that can be done."""
    kind = next((kind for kind in Kind if kind.value and text.startswith(kind.value)), Kind.FORWARD)
    argument = text.removeprefix(kind.value)
    if text.startswith((b".", b"/")):
        kind, argument = Kind.LIST, text
    if not argument.strip(b" \t"):
        raise ValueError("nothing stands behind its first character")
    if len(argument) > (ADDRESS_MAX if kind is Kind.FORWARD else COMMAND_MAX):
        raise ValueError("it is too long")
    if b"\0" in argument or (kind is Kind.FORWARD and any(byte in argument for byte in b"\r\n")):
        raise ValueError("there is a NUL byte or a line end in it")
    return Command(kind, argument)


def encode(commands: Iterable[Command]) -> bytes:
    return b"".join([b"%b%b\0" % (command.kind.value, command.argument) for command in commands])


def decode(value: bytes) -> list[Command]:
    """Raises ValueError for what `encode` cannot have made."""
    if value and not value.endswith(b"\0"):
        raise ValueError("it is cut off")
    return [command(text) for text in value.split(b"\0")[:-1]]


def _words(text: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Line, mark (or nothing) and the word before it, without quotes; the text's end is a mark that is empty."""
    position, line, word = 0, 1, b""
    expects_target = True
    while position < len(text):
        match = _COMMENT.match(text, position) if expects_target and not word else None
        match = match or _TOKEN.match(text, position)
        if match is None:
            raise BadForward(f"{line}: a quote without its counterpart")
        mark = match.groupdict().get("mark")
        if mark:
            yield line, mark, word
            word, expects_target = b"", mark == b";"
        elif match.re is _TOKEN:
            quoted, one, plain = match["quoted"], match["one"], match["plain"]
            word += plain or one or (_BACKSLASH.sub(rb"\1", quoted) if quoted is not None else b"")
        line += text.count(b"\n", position, match.end())
        position = match.end()
    if word or not expects_target:
        raise BadForward(f"{line}: an instruction without its semicolon")


def check_target(target: bytes) -> None:
    """Raises ValueError."""
    local, at, host = target.rpartition(b"@")
    if not at or not (local or host):
        raise ValueError("a target is user@host, @host or user@")
    if len(target) > ADDRESS_MAX or any(byte in target for byte in b"\0\r\n"):
        raise ValueError("the target is too long, or has a NUL byte or a line end")


def _target_key(target: bytes) -> bytes:
    kind, name = (OWNER, target[1:]) if target.startswith(OWNER) else (ADDRESS, target)
    check_target(name)
    return key(name, kind)


def parse(text: bytes) -> Iterator[Entry]:
    """The instructions of setforward's *text*; raises BadForward."""
    name, commands, begun_at = b"", [], 0
    for line, mark, word in _words(text):
        try:
            if mark == b":":
                if begun_at:
                    raise ValueError("a second colon")
                name, begun_at = _target_key(word), line
                continue
            if not begun_at:
                raise ValueError("no colon after the target")
            if word:
                commands.append(command(word))
            if mark == b";":
                if name.startswith(OWNER) and [step.kind for step in commands] != [Kind.FORWARD]:
                    raise ValueError("an owner is one address")
                yield Entry(name, tuple(commands), begun_at)
                name, commands, begun_at = b"", [], 0
        except ValueError as error:
            raise BadForward(f"{line}: {error}") from error


def _written(text: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\g<0>", text)


def unparse(name: bytes, commands: Iterable[Command]) -> bytes:
    """The instruction of a key, as `parse` takes it."""
    target = name[1:] if name.startswith(ADDRESS) else name
    steps = (_written(kind.value + argument) for kind, argument in commands)
    return _written(target) + b": " + b", ".join(steps) + b";\n"
