"""Attack: DNS or HTTPS taken away, so that an MTA-STS policy is forgotten (RFC 8461 10.2); and policies too old."""

from pathlib import Path
from typing import Any

import pytest

from tests.black.test_remote_sts import StsWorld, policy
from tests.harness.tlspeers import PLAIN

LOST: dict[str, dict[str, Any]] = {
    "NXDOMAIN": {"rcode": "NXDOMAIN"},
    "SERVFAIL": {"rcode": "SERVFAIL"},
    "dropped": {"do": "drop"},
    "emptied": {"answer": ['"v=spf1 -all"']},
}


@pytest.mark.parametrize("how", LOST)
def test_a_policy_holds_until_its_time_is_over(tmp_path: Path, how: str) -> None:
    """Whatever DNS says or does not say, a policy that was had before holds, and is not done without."""
    world = StsWorld(tmp_path)
    world.keep(policy(age=604800), age_s=600000)
    with world.at_port(EHLO=[PLAIN]) as mx:
        result = world.send(**{"_mta-sts.x.test TXT": LOST[how]})
        assert mx.texts() == []
    assert (result.letter, b"it does not offer STARTTLS" in result.text) == (b"Z", True)


def test_a_policy_that_is_too_old_is_none(tmp_path: Path) -> None:
    """After max_age a policy that cannot be had anew does not hold any more."""
    world = StsWorld(tmp_path)
    world.keep(policy(age=604800), age_s=604801)
    with world.at_port(EHLO=[PLAIN]):
        assert world.send(**{"_mta-sts.x.test TXT": LOST["NXDOMAIN"]}).letter == b"K"


@pytest.mark.parametrize("text", ["garbage", "", "99999999999 1 a\nversion: STSv1\n", "0 0 \n"])
def test_a_broken_cache_is_an_empty_one(tmp_path: Path, text: str) -> None:
    """What makes no sense in the cache is no policy, and no obstacle."""
    world = StsWorld(tmp_path)
    (world.home.folder / "sts" / "x.test").write_text(text)
    with world.at_port(EHLO=[PLAIN]):
        assert world.send(**{"_mta-sts.x.test TXT": LOST["NXDOMAIN"]}).letter == b"K"
