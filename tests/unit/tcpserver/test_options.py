"""The command line of tcpserver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.tcpserver.options import ERRORS, QUIET, VERBOSE, Options, parse
from qm.unix.program import Usage

REST = [b"0", b"25", b"prog", b"-x", b"arg"]


def _parse(*words: bytes) -> dict[str, object]:
    """What differs from the defaults, without host, port and program."""
    options = parse([*words, *REST])
    assert (options.host, options.port, options.program) == (b"0", b"25", (b"prog", b"-x", b"arg"))
    return {name: value for name, value in vars(options).items() if name not in ("host", "port", "program")}


def test_the_defaults() -> None:
    """As ucspi-tcp has them: errors are said, 40 at once, names and ident are asked for, IP options killed."""
    assert _parse() == {}
    options = Options()
    assert (options.verbosity, options.limit, options.backlog, options.ident_s) == (ERRORS, 40, 20, 26)
    assert options.look_up_host and options.ask_ident
    assert not (options.paranoid or options.keep_ip_options or options.nodelay)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ((b"-q",), {"verbosity": QUIET}),
        ((b"-v",), {"verbosity": VERBOSE}),
        ((b"-v", b"-Q"), {"verbosity": ERRORS}),
        ((b"-HR",), {"look_up_host": False, "ask_ident": False}),
        ((b"-H", b"-h", b"-R", b"-r"), {"look_up_host": True, "ask_ident": True}),
        ((b"-pP",), {"paranoid": False}),
        ((b"-oD",), {"keep_ip_options": True, "nodelay": True}),
        ((b"-oODd",), {"keep_ip_options": False, "nodelay": False}),
        ((b"-c5",), {"limit": 5}),
        ((b"-c", b"5"), {"limit": 5}),
        ((b"-vc5",), {"verbosity": VERBOSE, "limit": 5}),
        ((b"-1vHc", b"7"), {"print_port": True, "verbosity": VERBOSE, "look_up_host": False, "limit": 7}),
        ((b"-C3",), {"limit_per_address": 3}),
        ((b"-C", b"0"), {"limit_per_address": 0}),
        ((b"-xtcp.cdb", b"-X"), {"rules": b"tcp.cdb", "rules_optional": True}),
        ((b"-x", b"tcp.cdb"), {"rules": b"tcp.cdb"}),
        ((b"-B", b"220 hello\r\n"), {"banner": b"220 hello\r\n"}),
        ((b"-u", b"qmaild", b"-g60000"), {"user": b"qmaild", "group": b"60000"}),
        ((b"-U",), {"ids_from_environment": True}),
        ((b"-b0",), {"backlog": 0}),
        ((b"-l0",), {"local_name": b"0"}),
        ((b"-l", b""), {"local_name": b""}),
        ((b"-t5",), {"ident_s": 5}),
        ((b"-4",), {"family": 4}),
        ((b"-6",), {"family": 6}),
        ((b"-v", b"--"), {"verbosity": VERBOSE}),
        ((b"-l", b"--"), {"local_name": b"--"}),
    ],
)
def test_options(words: tuple[bytes, ...], settings: dict[str, object]) -> None:
    """Flags may be clustered, arguments attached or not, the last word on a matter counts (qmail.md 2.9)."""
    assert _parse(*words) == settings


def test_options_end_at_the_first_other_word() -> None:
    """What follows host and port is the program's."""
    options = parse([b"", b"smtp", b"prog", b"-v", b"--", b"-c"])
    assert (options.host, options.port, options.program) == (b"", b"smtp", (b"prog", b"-v", b"--", b"-c"))
    assert options.verbosity == ERRORS


def test_a_lone_dash_is_a_word() -> None:
    """It ends the options and is not consumed."""
    assert parse([b"-v", b"-", b"25", b"prog"]).host == b"-"


@pytest.mark.parametrize(
    "words",
    [
        (), (b"0",), (b"0", b"25"), (b"0", b"25", b""), (b"-v",), (b"-c",), (b"-c", b"5"),
        (b"-z", *REST), (b"-vz", *REST), (b"-\xff", *REST), (b"--verbose", *REST),
        (b"-cx", *REST), (b"-c0", *REST), (b"-c-1", *REST), (b"-c", b"", *REST), (b"-c5x", *REST),
        (b"-c99999999999999999999", *REST), (b"-c\xb2", *REST), (b"-tx", *REST), (b"-b-5", *REST), (b"-Cx", *REST),
    ],
)  # fmt: skip
def test_wrong_command_lines(words: tuple[bytes, ...]) -> None:
    """Each gets the usage."""
    with pytest.raises(Usage, match="usage: tcpserver"):
        parse(words)


@pytest.mark.parametrize("words", [(b"-I", b"eth0", *REST), (b"-Ieth0", *REST), (b"-vI", b"eth0", *REST)])
def test_there_is_no_interface(words: tuple[bytes, ...]) -> None:
    """-I, which the IPv6 patch of ucspi-tcp has, gets the usage: an address of the interface says it."""
    with pytest.raises(Usage, match="no option -I; usage: tcpserver"):
        parse(words)


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"-v", b"-c", b"5", b"--"]), max_size=8))
def test_any_words_are_options_or_usage(words: list[bytes]) -> None:
    """No command line makes parse fail otherwise."""
    try:
        options = parse(words)
    except Usage:
        return
    assert options.program[0]
    assert [options.host, options.port, *options.program] == words[-2 - len(options.program) :]
