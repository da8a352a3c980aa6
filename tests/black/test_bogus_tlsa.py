"""Attack: TLSA records that a validating resolver finds forged (SERVFAIL), or that never come (RFC 7672 2.1.1)."""

from pathlib import Path
from typing import Any

import pytest

from tests.black.test_remote_dane import BOB, DaneWorld

LOST: dict[str, dict[str, Any]] = {
    "bogus": {"rcode": "SERVFAIL"},
    "refused": {"rcode": "REFUSED"},
    "dropped": {"do": "drop"},
    "garbage": {"do": "garbage"},
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("policy", ["", "x.test:dane"])
def test_records_that_cannot_be_had(tmp_path: Path, how: str, policy: str) -> None:
    """Who might have records is not trusted without them: nothing is sent, the message waits."""
    world = DaneWorld(tmp_path)
    world.policy(policy)
    with world.at_port() as mx:
        result = world.deliver(TLSA=LOST[how])
        assert mx.sessions() == 0
    assert (result.letter, result.status) == (b"Z", b"4.7.5")
    assert b"its TLSA records could not be looked up" in result.text


def test_the_trouble_is_not_remembered(tmp_path: Path) -> None:
    """The next message asks again."""
    world = DaneWorld(tmp_path)
    with world.at_port(), world.spawner(world.zone(TLSA=LOST["bogus"])) as (spawner, dns):
        assert [spawner.result(BOB).letter for _ in range(2)] == [b"Z", b"Z"]
        assert sum(line.endswith("TLSA") for line in dns.asked()) >= 2
