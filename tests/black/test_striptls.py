"""Attack: STRIPTLS.  Somebody in between takes STARTTLS out of the offer, refuses it, or breaks the handshake."""

from pathlib import Path

import pytest

from tests.harness.rspawn import rspawn
from tests.harness.tlspeers import PLAIN, TlsWorld

TRICKS = {
    "no offer": {"EHLO": [PLAIN]},
    "crossed out": {"EHLO": ["250-mx.test\r\n250 XXXXXXXA"]},
    "no EHLO": {"EHLO": ["502 what?"]},
    "454": {"STARTTLS": ["454 4.7.0 not now"]},
    "500": {"STARTTLS": ["500 5.5.1 what?"]},
    "broken": {"STARTTLS": [["220 go ahead", "!raw:\x15\x03\x01\x00\x02\x02\x28"]]},
    "closed": {"STARTTLS": [["220 go ahead", "!close"]]},
    "reset": {"STARTTLS": [["220 go ahead", "!reset"]]},
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("level", ["encrypt", "verify x.test"])
def test_a_downgrade_is_a_deferral(tmp_path: Path, trick: str, level: str) -> None:
    """Where TLS is demanded nothing of a message goes in clear, whatever happens to STARTTLS; the message waits."""
    world = TlsWorld(tmp_path)
    world.policy(f":{level}")
    with world.mx(**TRICKS[trick]) as mx, rspawn(world.home) as spawner:
        result = spawner.result(b"bob@x.test")
        assert not any(line.startswith(("MAIL", "RCPT", "DATA")) for line in mx.lines())
    assert result.letter == b"Z"


@pytest.mark.parametrize("trick", TRICKS)
def test_without_a_demand_mail_goes_on(tmp_path: Path, trick: str) -> None:
    """Where nobody demands TLS the message goes in clear, and its report does not speak of TLS."""
    world = TlsWorld(tmp_path)
    with world.mx(**TRICKS[trick]) as mx, rspawn(world.home) as spawner:
        result = spawner.result(b"bob@x.test")
        assert len(mx.texts()) == 1
    assert (result.letter, b"TLS" in result.text) == (b"K", False)
