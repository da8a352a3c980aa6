"""The services file, and when a service is started again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.supervise.policy import DELAY_MAX_S, QUICK_S, BadServices, Service, next_delay, parse


def test_a_line_is_a_command_line_as_one_types_it() -> None:
    """Words are split as a shell does it; nothing is expanded; comments and empty lines do not count."""
    services = parse(b"# mine\n\nsmtp: tcpserver -x 'tcp rules.cdb' 0 25 qm-smtpd $HOME *\nb: \\# \"a b\"\n")
    assert services == (
        Service("smtp", (b"tcpserver", b"-x", b"tcp rules.cdb", b"0", b"25", b"qm-smtpd", b"$HOME", b"*")),
        Service("b", (b"#", b"a b")),
    )


def test_words_before_the_command_are_its_environment() -> None:
    """NAME=VALUE words before the command are this service's environment; after it they are arguments."""
    (service,) = parse(b"submit: SUBMISSION= A_1='x  y' B=\"p=q\" env C=3 qm-smtpd\n")
    assert service.env == ((b"SUBMISSION", b""), (b"A_1", b"x  y"), (b"B", b"p=q"))
    assert service.argv == (b"env", b"C=3", b"qm-smtpd")


def test_what_is_no_name_begins_the_command() -> None:
    """A word whose part before = is no name of a variable is the command."""
    (service,) = parse(b"a: 1A=x A=y\n")
    assert service == Service("a", (b"1A=x", b"A=y"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", 1),
        (b"# nothing\n", 1),
        (b"a: b\nnonsense\n", 2),
        (b"a: b\n: c\n", 2),
        (b"a:\n", 1),
        (b"a: A=1 B=2\n", 1),
        (b"a: b\0c\n", 1),
        (b"a: b\na: c\n", 2),
        (b"log: cat\n", 1),
        (b"A: b\n", 1),
        (b"a: 'b\n", 1),
        (b"".join(b"s%d: x\n" % number for number in range(101)), 101),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text: bytes, line: int) -> None:
    """What is not NAME: COMMAND LINE is refused, and the message names the line."""
    with pytest.raises(BadServices) as caught:
        parse(text)
    assert caught.value.detail.startswith(f"services:{line}: ")


@given(st.binary(max_size=300))
def test_any_bytes(text: bytes) -> None:
    """Any file gives services or BadServices."""
    try:
        assert all(service.argv for service in parse(text))
    except BadServices:
        pass


def test_a_service_that_dies_quickly_waits_longer_each_time() -> None:
    """The wait doubles up to its maximum, and begins anew after a long life."""
    delays = [0.0]
    for _ in range(12):
        delays.append(next_delay(delays[-1], 0.1))
    assert delays[1:4] == [0.25, 0.5, 1.0]
    assert delays[-1] == DELAY_MAX_S
    assert next_delay(DELAY_MAX_S, QUICK_S) == 0.25
