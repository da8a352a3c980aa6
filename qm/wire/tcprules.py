"""tcprules: which connections tcpserver takes, and with which environment (qmail.md 21.2, 21.3).

A rule is a line, ``address:allow`` or ``address:deny``, with ``,VAR="value"`` any number of times.  Compiled, an
address is a key of a cdb, and its data is a run of NUL-terminated items: ``D`` denies, ``+VAR=value`` sets a variable.

The address ends where its instructions begin, since an IPv6 address has colons itself.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

LINE_MAX: Final = 65536  # bytes; a rule is one record of a cdb, a line without end is none
_INSTRUCTIONS: Final = re.compile(rb":(allow|deny)(?=,|\Z)")
_RANGE: Final = re.compile(rb"(?P<before>(?:\d+\.)*)(?P<first>\d{1,9})-(?P<last>\d{1,9})(?P<after>\.(?:\d+\.?)*|\Z)")
_IPV4: Final = re.compile(rb"(?:\d{1,3}\.){1,3}|(?:\d{1,3}\.){3}\d{1,3}")
_IPV6: Final = re.compile(rb"[0-9a-f:.]*:[0-9a-f:.]*")
_IPV6_COLONS: Final = 7  # in an address without ::
_BYTE_MAX: Final = 255  # a range goes no further


class BadRule(ValueError):
    """A line that is no rule; says why."""


class BadData(ValueError):
    """Data that no tcprules has written."""


class Decision(NamedTuple):
    """What a rule says about a connection."""

    allow: bool = True
    variables: tuple[tuple[bytes, bytes], ...] = ()


class Rule(NamedTuple):
    addresses: tuple[bytes, ...]  # more than one: a range
    decision: Decision


def _expand(address: bytes) -> tuple[bytes, ...]:
    """The addresses that *address* abbreviates; host names and users have dashes of their own."""
    if b"-" not in address or b"=" in address or b"@" in address:
        return (address,)
    match = _RANGE.fullmatch(address)
    if match is None:
        raise BadRule("a range is two numbers in one place of an IPv4 address, as in 1.2.3.37-53 or 10.2-3.")
    numbers = range(int(match["first"]), min(int(match["last"]), _BYTE_MAX) + 1)
    if not numbers:
        raise BadRule("the range is empty")
    return tuple(b"%b%d%b" % (match["before"], number, match["after"]) for number in numbers)


def _variables(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Split ``,VAR="value",OTHER=/value/``, where any character may be the quote."""
    while text:
        name, equals, rest = text[1:].partition(b"=")
        quote = rest[:1]
        value, closing, after = rest[1:].partition(quote) if quote else (b"", b"", b"")
        if not text.startswith(b",") or not name or not equals or not closing:
            raise BadRule('a variable is set as in ,NAME="value"')
        yield name, value
        text = after


def parse(line: bytes) -> Rule | None:
    """The rule of *line*, None for a comment or nothing; raises BadRule."""
    line = line.rstrip(b" \t\n")
    if not line or line.startswith(b"#"):
        return None
    if b"\0" in line:
        raise BadRule("it has a NUL byte")
    match = _INSTRUCTIONS.search(line)
    if match is None:
        raise BadRule("an address, a colon, then allow or deny, then variables or nothing")
    variables = tuple(_variables(line[match.end() :]))
    return Rule(_expand(line[: match.start()]), Decision(match[1] == b"allow", variables))


def pointless(address: bytes) -> bool:
    """Whether no connection can ever have *address*: it is no IP address, and no prefix ending in a dot or colon."""
    if not address or b"=" in address or b"@" in address or _IPV4.fullmatch(address):
        return False
    if not _IPV6.fullmatch(address):
        return True
    return not (address.endswith(b":") or b"::" in address or address.count(b":") == _IPV6_COLONS)


def encode(decision: Decision) -> bytes:
    items = [] if decision.allow else [b"D"]
    items += [b"+%b=%b" % variable for variable in decision.variables]
    return b"".join(item + b"\0" for item in items)


def decode(data: bytes) -> Decision:
    """The decision that *data* holds; raises BadData."""
    if data and not data.endswith(b"\0"):
        raise BadData("the last item has no end")
    allow, variables = True, []
    for item in data.split(b"\0")[:-1]:
        name, equals, value = item[1:].partition(b"=")
        if item == b"D":
            allow = False
        elif item.startswith(b"+") and name and equals:
            variables.append((name, value))
        else:
            raise BadData("an item is neither D nor +NAME=value")
    return Decision(allow, tuple(variables))


def _prefixes(ip: bytes) -> Iterator[bytes]:
    """Shorter and shorter beginnings of *ip* that end with a dot or a colon."""
    for end in range(len(ip) - 1, 0, -1):
        if ip[end - 1 : end] in b".:":
            yield ip[:end]


def _domains(host: bytes) -> Iterator[bytes]:
    """The ends of *host* that begin with a dot, longest first."""
    dot = host.find(b".")
    while dot >= 0:
        yield host[dot:]
        dot = host.find(b".", dot + 1)


def keys(ip: bytes, host: bytes | None, info: bytes | None) -> Iterator[bytes]:
    """The addresses to look for, in order; the first that has a rule decides.  None is what is not known."""
    if info is not None:
        yield b"%b@%b" % (info, ip)
        if host is not None:
            yield b"%b@=%b" % (info, host)
    yield ip
    if host is not None:
        yield b"=" + host
    yield from _prefixes(ip)
    if host is not None:
        yield from (b"=" + domain for domain in _domains(host))
        yield b"="
    yield b""
