"""rspawn against Postfix's smtp-sink, in its hostile modes."""

from collections.abc import Iterator

import pytest

from qm.wire.delivery import Health, Outcome
from tests.harness.barehome import BareHome
from tests.harness.peers import SmtpSink
from tests.harness.rspawn import rspawn

pytestmark = pytest.mark.needs("smtp-sink")

STEPS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareHome]:
    yield BareHome(tmp_path_factory.mktemp("sink") / "home", None)


def outcomes(home: BareHome, *sinks: tuple[str, ...], **controls: str) -> list[Outcome]:
    """What becomes of a message to each sink, all at once."""
    for name, value in controls.items():
        home.control(name, f"{value}\n")
    running = [SmtpSink(*options) for options in sinks]
    try:
        home.control("smtproutes", "".join(f"s{n}.test:127.0.0.1:{sink.port}\n" for n, sink in enumerate(running)))
        with rspawn(home) as spawner:
            numbers = [spawner.give(b"bob@s%d.test" % n) for n in range(len(running))]
            found = {(outcome := spawner.outcome()).number: outcome for _ in running}
        return [found[number] for number in numbers]
    finally:
        for sink in running:
            sink.__exit__(None, None, None)
        for name in controls:
            (home.folder / "control" / name).unlink()


def letters(found: list[Outcome]) -> str:
    return "".join(outcome.results[0].letter.decode() for outcome in found)


def test_it_takes_mail(home: BareHome) -> None:
    """With every extension, without ESMTP, or pipelining, or 8BITMIME, or behind a Cisco PIX: it is delivered."""
    assert letters(outcomes(home, (), ("-e",), ("-p",), ("-8",), ("-P",), ("-N",), ("-E",))) == "KKKKKKK"


def test_it_disconnects(home: BareHome) -> None:
    """A server that hangs up, at whatever step, makes mail wait (-q)."""
    found = outcomes(home, *[("-q", step) for step in STEPS])
    assert letters(found) == "ZZZZZZ"
    assert {outcome.health for outcome in found} == {Health.BUSY}
    assert [b"duplicate" in outcome.results[0].text for outcome in found] == [False] * 5 + [True]


def test_it_says_421(home: BareHome) -> None:
    """A server that closes with 421, at whatever step, makes mail wait (-Q)."""
    found = outcomes(home, *[("-Q", step) for step in STEPS])
    assert letters(found) == "ZZZZZZ"
    assert {outcome.health for outcome in found} == {Health.BUSY}


def test_it_refuses(home: BareHome) -> None:
    """A 5xx is for ever from MAIL on (-f); after EHLO we say HELO, and a relay that wants neither is asked again."""
    found = outcomes(home, *[("-f", step) for step in STEPS], ("-f", "EHLO,HELO"))
    assert letters(found) == "ZKDDDDZ"


def test_it_defers(home: BareHome) -> None:
    """A 4xx is not for ever at any step (-r)."""
    found = outcomes(home, *[("-r", step) for step in STEPS])
    assert letters(found) == "ZZZZZZ"
    assert [outcome.health for outcome in found] == [Health.BUSY] * 2 + [Health.UP] * 4


def test_it_is_slow(home: BareHome) -> None:
    """A slow answer is waited for (-w, -W) as long as the control files say, and no longer."""
    slow = [("-w", "1"), ("-W", ".:1"), ("-p", "-W", "RCPT:1"), ("-H", "1")]
    assert letters(outcomes(home, *slow)) == "KKKK"
    late = [("-w", "9"), ("-W", ".:9"), ("-p", "-W", "RCPT:9"), ("-W", "EHLO:9")]
    assert letters(outcomes(home, *late, timeoutremote="1")) == "ZZZZ"


def test_it_aborts(home: BareHome) -> None:
    """A 550 to DATA's text before its end is a refusal (-A)."""
    assert letters(outcomes(home, ("-A", "0"))) == "D"


def test_many(home: BareHome) -> None:
    """150 messages to as many domains behind one relay go over two sessions."""
    with SmtpSink() as sink:
        home.control("smtproutes", f":127.0.0.1:{sink.port}\n")
        with rspawn(home) as spawner:
            assert [spawner.result(b"u@d%d.test" % n).letter for n in range(150)] == [b"K"] * 150
