"""sendmail's alias files: ``name: address, "|program", /file, :include:/file`` (newaliases(5) of sendmail).

A line that begins with a blank goes on with the one before; empty lines and those whose first character is # do not
count, also in between.  Names are without regard to case; ``owner-name`` says who gets the bounces of what ``name``
forwards.  A host that is not said is whatever the caller gives.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from qm.wire import forwarding, maillist, rfc822address
from qm.wire.forwarding import OWNER, BadForward, Command, Entry, Kind, key
from qm.wire.rfc822token import Unparsable

_INCLUDE: Final = b":include:"
_OWNER: Final = b"owner-"
_NULL: Final = b"/dev/null"
_ITEM: Final = re.compile(
    rb'(?:(?>"(?>[^"\\]*(?:\\.[^"\\]*)*)")|\\.|\((?>[^()\\]*(?:\\.[^()\\]*)*)\)|<[^>]*>|[^,"\\(<])+', re.DOTALL
)
_QUOTED: Final = re.compile(rb'"((?>[^"\\]*(?:\\.[^"\\]*)*))"', re.DOTALL)
_NAME: Final = re.compile(rb'(?:"((?>[^"\\]*(?:\\.[^"\\]*)*))"|([^\s:"]+))[ \t]*:', re.DOTALL)
_BACKSLASH: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL: Final = (b"|", b"/", _INCLUDE)


class Aliases(NamedTuple):
    entries: list[Entry]
    warnings: list[str]  # each begins with its line's number


def logical_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with what continues them, each with the number of its first."""
    count = 0
    pieces: list[bytes] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        stripped = line.strip(b" \t\r")
        if not stripped or stripped.startswith(b"#"):
            continue
        if line[:1] not in (b" ", b"\t"):
            if pieces:
                yield count, b" ".join(pieces)
            count, pieces = number, []
        elif not pieces:
            raise BadForward(f"{number}: it begins with a blank, but there is no line before it")
        pieces.append(stripped)
    if pieces:
        yield count, b" ".join(pieces)


def _plain(text: bytes) -> bytes:
    return _BACKSLASH.sub(rb"\1", text)


def _unquoted(item: bytes) -> bytes:
    """What "|program" and the like mean: quotes around all of it, or around what follows the first character."""
    whole = _QUOTED.fullmatch(item)
    if whole and whole[1].lower().startswith(_SPECIAL):
        return _plain(whole[1])
    rest = _QUOTED.fullmatch(item[1:].strip()) if item.startswith(b"|") else None
    return b"|" + _plain(rest[1]) if rest else item


def items(text: bytes) -> list[bytes]:
    """What stands between commas; raises ValueError for a quote or a bracket that is not closed."""
    found, position = [], 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match:
            found.append(match[0].strip())
            position = match.end()
        if position < len(text):
            if text[position : position + 1] != b",":
                raise ValueError(f"{text[position : position + 1].decode('latin-1')} has no counterpart")
            position += 1
    return [item for item in found if item]


def _addresses(item: bytes, host: bytes) -> list[Command]:
    found = rfc822address.addresses(item)
    if not all(found):
        raise ValueError("an empty address")
    named = (address if b"@" in address else address + b"@" + host for address in found)
    return [forwarding.command(Kind.FORWARD.value + address) for address in named]


def commands(item: bytes, host: bytes) -> list[Command]:
    """What one *item* of an alias says to do; raises ValueError."""
    text = _unquoted(item)
    if text.lower().startswith(_INCLUDE):
        path = text[len(_INCLUDE) :].strip()
        if not path.startswith(b"/"):
            raise ValueError("the name of an :include: file must begin with /")
        return [forwarding.command(path + maillist.COMPILED)]
    if text.startswith(b"/"):
        return [] if text == _NULL else [forwarding.command(Kind.FILE.value + text)]
    if text.startswith(b"|"):
        return [forwarding.command(Kind.PRELINE.value + text[1:].strip())]
    return _addresses(item, host)


def addressees(text: bytes, host: bytes) -> list[Command]:
    """All that one line says to do, once each; raises ValueError."""
    try:
        found = [command for item in items(text) for command in commands(item, host)]
    except Unparsable as error:
        raise ValueError(f"unable to parse an address: {error}") from error
    return list(dict.fromkeys(found))


def included(text: bytes, host: bytes) -> list[Command]:
    """The addresses of an :include: file, which has no names; raises BadForward."""
    found: list[Command] = []
    for line, content in logical_lines(text):
        try:
            found += map(maillist.check, addressees(content, host))
        except ValueError as error:
            raise BadForward(f"{line}: {error}") from error
    return found


def _name(line: bytes) -> tuple[bytes, bytes]:
    """The target and what follows its colon; raises ValueError."""
    match = _NAME.match(line)
    if match is None:
        raise ValueError("no name and colon at its beginning")
    name = _plain(match[1]) if match[1] is not None else match[2]
    target = (name if b"@" in name else name + b"@").lower()
    forwarding.check_target(target)
    return target, line[match.end() :]


def parse(text: bytes, host: bytes) -> Aliases:
    """Raises BadForward for a line that is no alias.  Of two aliases with one name the first counts, with a warning."""
    known: dict[bytes, Entry] = {}
    warnings = []
    for line, content in logical_lines(text):
        try:
            target, rest = _name(content)
            entry = Entry(key(target), tuple(addressees(rest, host)), line)
        except ValueError as error:
            raise BadForward(f"{line}: {error}") from error
        first = known.setdefault(entry.key, entry)
        if first is not entry:
            warnings.append(f"{line}: the same name as in line {first.line}, which counts")
    warnings += _circles(known, host)
    return Aliases([*known.values(), *_owners(known, host)], warnings)


def _owners(known: dict[bytes, Entry], host: bytes) -> Iterator[Entry]:
    """Bounces of what ``list`` forwards go to ``owner-list``, if there is such an alias."""
    for name, entry in known.items():
        owned = name[1:].removeprefix(_OWNER)
        if owned != name[1:] and key(owned) in known:
            address = name[1:] + host if name.endswith(b"@") else name[1:]
            yield Entry(key(owned, OWNER), (forwarding.command(Kind.FORWARD.value + address),), entry.line)


def _next(entry: Entry, host: bytes, known: dict[bytes, Entry]) -> Iterator[bytes]:
    """The aliases that *entry* leads to at once."""
    for kind, argument in entry.commands:
        if kind is Kind.FORWARD:
            local, _, domain = argument.lower().rpartition(b"@")
            names = (argument.lower(), *([local + b"@"] if domain == host.lower() else []))
            yield from (key(name) for name in names if key(name) in known)


def _circles(known: dict[bytes, Entry], host: bytes) -> Iterable[str]:
    """Aliases that lead back to themselves: each is followed once, however long the way."""
    done: set[bytes] = set()
    for start in known:
        way: dict[bytes, Iterator[bytes]] = {} if start in done else {start: _next(known[start], host, known)}
        while way:
            name, steps = next(reversed(way.items()))
            step = next(steps, None)
            if step is None:
                done.add(name)
                del way[name]
            elif step in way:
                shown = step[1:].decode("utf-8", "backslashreplace").removesuffix("@")
                yield f"{known[name].line}: {shown} leads back to itself: its mail bounces unless it is a user's name"
            elif step not in done:
                way[step] = _next(known[step], host, known)
