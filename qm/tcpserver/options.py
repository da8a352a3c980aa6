"""The command lines of tcpserver (qmail.md 21.1) and ipcserver.

ipcserver's words are those of ucspi-ipc, and -o, -r of ucspi-unix; -m is a mode here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.unix.program import Argv, Usage

QUIET: Final = 0
ERRORS: Final = 1
VERBOSE: Final = 2
NUMBER_MAX: Final = 1_000_000

_USAGE: Final = (
    "usage: tcpserver [-146UXpPhHrRoOdDqQv] [-c limit] [-C limit per address] [-x rules.cdb] [-B banner] [-g gid]"
    " [-u uid] [-b backlog] [-l localname] [-t timeout] host port program [arg ...]"
)


_IPC_USAGE: Final = (
    "usage: ipcserver [-pqQvU] [-c limit] [-C limit per user] [-B banner] [-g gid] [-u uid] [-o owner] [-r group]"
    " [-m mode] [-b backlog] path program [arg ...]"
)
PATH_MAX: Final = 107  # bytes; unix(7)


class Options:
    """What the command line says; here are the defaults."""

    name = b"tcpserver"
    path = b""  # ipcserver's socket, with its owner, group and mode
    owner = b""
    socket_group = b""
    mode = 0o600
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


class Grammar(NamedTuple):
    flags: dict[bytes, tuple[str, bool | int]]
    texts: dict[bytes, str]
    numbers: dict[bytes, tuple[str, int]]
    usage: str


_TCP: Final = Grammar(_FLAGS, _TEXTS, _NUMBERS, _USAGE)
_MODE: Final = b"m"
IPC: Final = Grammar(
    {b"p": ("ask_ident", False), **{letter: _FLAGS[letter] for letter in (b"q", b"Q", b"v", b"U")}},  # -p is always so
    {b"o": "owner", b"r": "socket_group", _MODE: "mode", **{letter: _TEXTS[letter] for letter in (b"B", b"u", b"g")}},
    {letter: _NUMBERS[letter] for letter in (b"c", b"C", b"b")},
    _IPC_USAGE,
)


def _number(grammar: Grammar, letter: bytes, text: bytes, least: int) -> int:
    if not (text.isdigit() and len(text) < 8 and least <= int(text) <= NUMBER_MAX):
        raise Usage(f"-{letter.decode()} wants a number from {least} to {NUMBER_MAX}; {grammar.usage}")
    return int(text)


def _mode(text: bytes) -> int:
    if not (0 < len(text) < 5 and all(digit in b"01234567" for digit in text) and int(text, 8) <= 0o777):
        raise Usage(f"-m wants a mode of up to 777, in octal; {_IPC_USAGE}")
    return int(text, 8)


def _set(options: Options, grammar: Grammar, letter: bytes, text: bytes) -> None:
    if letter in grammar.texts:
        setattr(options, grammar.texts[letter], _mode(text) if letter == _MODE else text)
    else:
        name, least = grammar.numbers[letter]
        setattr(options, name, _number(grammar, letter, text, least))


def _take_word(options: Options, grammar: Grammar, word: bytes, rest: list[bytes]) -> None:
    """One word of clustered flags; an option's argument is the rest of the word or the next one (qmail.md 2.9)."""
    while word:
        letter, word = word[:1], word[1:]
        if letter in grammar.flags:
            setattr(options, *grammar.flags[letter])
        elif letter in grammar.texts or letter in grammar.numbers:
            if not word and not rest:
                raise Usage(f"option -{letter.decode()} wants an argument; {grammar.usage}")
            _set(options, grammar, letter, word or rest.pop(0))
            return
        else:
            raise Usage(f"no option -{letter.decode('ascii', 'backslashreplace')}; {grammar.usage}")


def _flags(grammar: Grammar, args: Argv) -> tuple[Options, list[bytes]]:
    """What the options of *args* say, and the words that follow them."""
    options = Options()
    rest = list(args)
    while rest and rest[0].startswith(b"-") and rest[0] != b"-":
        word = rest.pop(0)
        if word == b"--":
            break
        _take_word(options, grammar, word[1:], rest)
    return options, rest


def parse_ipc(args: Argv) -> Options:
    """The same of ipcserver's."""
    options, rest = _flags(IPC, args)
    if len(rest) < 2 or not rest[0] or not rest[1]:
        raise Usage(_IPC_USAGE)
    if len(rest[0]) > PATH_MAX:
        raise Usage(f"the path of a socket has at most {PATH_MAX} bytes; {_IPC_USAGE}")
    options.name, options.path, options.program = b"ipcserver", rest[0], tuple(rest[1:])
    return options


def parse(args: Argv) -> Options:
    """What *args*, without the program's name, say; raises Usage."""
    options, rest = _flags(_TCP, args)
    if len(rest) < 3 or not rest[2]:
        raise Usage(_USAGE)
    options.host, options.port, options.program = rest[0], rest[1], tuple(rest[2:])
    return options
