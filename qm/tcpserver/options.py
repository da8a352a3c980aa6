"""The command line of tcpserver (qmail.md 21.1)."""

from collections.abc import Sequence
from typing import Final

from qm.unix.program import Argv, Usage

QUIET: Final = 0
ERRORS: Final = 1
VERBOSE: Final = 2
NUMBER_MAX: Final = 1_000_000

_USAGE: Final = (
    "usage: tcpserver [-146UXpPhHrRoOdDqQv] [-c limit] [-C limit per address] [-x rules.cdb] [-B banner] [-g gid]"
    " [-u uid] [-b backlog] [-l localname] [-t timeout] host port program [arg ...]"
)


class Options:
    """What the command line says; here are the defaults."""

    host = b""
    port = b""
    program: Sequence[bytes] = ()
    verbosity = ERRORS
    limit = 40  # connections at once
    limit_per_address = 0  # 0: as many as limit
    rules = b""  # empty: no rules
    rules_optional = False
    banner = b""
    user = b""  # name or number; empty: unchanged
    group = b""
    ids_from_environment = False
    family = 0  # 4, 6; 0: both
    print_port = False
    backlog = 20
    keep_ip_options = False
    nodelay = False
    look_up_host = True
    paranoid = False
    local_name: bytes | None = None  # None: look it up
    ask_ident = True
    ident_s = 26


_FLAGS: Final[dict[bytes, tuple[str, bool | int]]] = {
    b"q": ("verbosity", QUIET),
    b"Q": ("verbosity", ERRORS),
    b"v": ("verbosity", VERBOSE),
    b"X": ("rules_optional", True),
    b"U": ("ids_from_environment", True),
    b"4": ("family", 4),
    b"6": ("family", 6),
    b"1": ("print_port", True),
    b"o": ("keep_ip_options", True),
    b"O": ("keep_ip_options", False),
    b"d": ("nodelay", False),
    b"D": ("nodelay", True),
    b"h": ("look_up_host", True),
    b"H": ("look_up_host", False),
    b"p": ("paranoid", True),
    b"P": ("paranoid", False),
    b"r": ("ask_ident", True),
    b"R": ("ask_ident", False),
}
_TEXTS: Final = {b"x": "rules", b"B": "banner", b"u": "user", b"g": "group", b"l": "local_name"}
_NUMBERS: Final = {  # to the least that makes sense
    b"c": ("limit", 1),
    b"C": ("limit_per_address", 0),
    b"b": ("backlog", 0),
    b"t": ("ident_s", 0),
}


def _number(letter: bytes, text: bytes, least: int) -> int:
    if not (text.isdigit() and len(text) < 8 and least <= int(text) <= NUMBER_MAX):
        raise Usage(f"-{letter.decode()} wants a number from {least} to {NUMBER_MAX}; {_USAGE}")
    return int(text)


def _set(options: Options, letter: bytes, text: bytes) -> None:
    if letter in _TEXTS:
        setattr(options, _TEXTS[letter], text)
    else:
        name, least = _NUMBERS[letter]
        setattr(options, name, _number(letter, text, least))


def _take_word(options: Options, word: bytes, rest: list[bytes]) -> None:
    """One word of clustered flags; an option's argument is the rest of the word or the next one (qmail.md 2.9)."""
    while word:
        letter, word = word[:1], word[1:]
        if letter in _FLAGS:
            setattr(options, *_FLAGS[letter])
        elif letter in _TEXTS or letter in _NUMBERS:
            if not word and not rest:
                raise Usage(f"option -{letter.decode()} wants an argument; {_USAGE}")
            _set(options, letter, word or rest.pop(0))
            return
        else:
            raise Usage(f"no option -{letter.decode('ascii', 'backslashreplace')}; {_USAGE}")


def parse(args: Argv) -> Options:
    """What *args*, without the program's name, say; raises Usage."""
    options = Options()
    rest = list(args)
    while rest and rest[0].startswith(b"-") and rest[0] != b"-":
        word = rest.pop(0)
        if word == b"--":
            break
        _take_word(options, word[1:], rest)
    if len(rest) < 3 or not rest[2]:
        raise Usage(_USAGE)
    options.host, options.port, options.program = rest[0], rest[1], tuple(rest[2:])
    return options
