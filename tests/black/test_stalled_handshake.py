"""Attack: a server that says 220 to STARTTLS and then nothing: it holds one worker, and not for long."""

from pathlib import Path

import pytest

from tests.harness.rspawn import rspawn
from tests.harness.tlspeers import OFFER, TlsWorld


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    """After control/timeouttls the message is deferred, and the report says why."""
    world = TlsWorld(tmp_path)
    world.policy(":encrypt")
    world.home.control("timeouttls", "1\n")
    with world.mx(STARTTLS=[["220 go ahead", "!hang"]]), rspawn(world.home) as spawner:
        result = spawner.result(b"bob@x.test")
    assert (result.letter, result.status) == (b"Z", b"4.7.5")
    assert b"it did not finish the TLS handshake in time" in result.text


def test_others_go_on(tmp_path: Path) -> None:
    """A destination that stalls does not hold up another one."""
    world = TlsWorld(tmp_path)
    with world.mx(STARTTLS=[["220 go ahead", "!hang"]]) as stalled, world.mx() as mx:
        world.home.control("smtproutes", f"x.test:127.0.0.1:{stalled.port}\ny.test:127.0.0.1:{mx.port}\n")
        with rspawn(world.home) as spawner:
            spawner.give(b"bob@x.test")
            second = spawner.give(b"bob@y.test")
            assert spawner.outcome(second).results[0].letter == b"K"
            spawner.kill()


@pytest.mark.parametrize("where", ["EHLO", "EHLO_TLS"])
def test_huge_ehlo(tmp_path: Path, where: str) -> None:
    """An answer to EHLO without an end is given up, before STARTTLS and behind it."""
    world = TlsWorld(tmp_path)
    world.policy(":encrypt")
    with world.mx(**{where: ["!endless"]}), rspawn(world.home) as spawner:
        result = spawner.result(b"bob@x.test")
    assert (result.letter, b"its reply has no end" in result.text) == (b"Z", True)


def test_many_extensions(tmp_path: Path) -> None:
    """STARTTLS beyond what is looked at of an answer counts as not offered."""
    world = TlsWorld(tmp_path)
    world.policy(":encrypt")
    many = "".join(f"250-X{number}\r\n" for number in range(300))
    with world.mx(EHLO=[f"250-mx.test\r\n{many}{OFFER[-12:]}"]), rspawn(world.home) as spawner:
        assert b"it does not offer STARTTLS" in spawner.result(b"bob@x.test").text
