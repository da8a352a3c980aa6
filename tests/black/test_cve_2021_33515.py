"""Attack: CVE-2021-33515 and its class, from the client's side: answers that come in clear behind the 220 to STARTTLS.

Kept across the handshake they would be taken for the server's answers behind TLS.
"""

from pathlib import Path

import pytest

from tests.harness.rspawn import rspawn
from tests.harness.tlspeers import TlsWorld

FORGED = "250-mx.test\r\n250 SIZE 1000\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n"


@pytest.mark.parametrize("forged", [FORGED, "2", "\r\n", "250-"])
@pytest.mark.parametrize("level", ["encrypt", "verify x.test"])
def test_answers_behind_the_220(tmp_path: Path, forged: str, level: str) -> None:
    """Bytes behind the 220 end the session: no handshake, not a word more; the message waits."""
    world = TlsWorld(tmp_path)
    world.policy(f":{level}")
    with world.mx(STARTTLS=[[f"!raw:220 go ahead\r\n{forged}", f"!tls:{world.certificate}"]]) as mx:
        with rspawn(world.home) as spawner:
            result = spawner.result(b"bob@x.test")
        assert (mx.lines(), mx.handshakes()) == (["EHLO me.example", "STARTTLS"], [])
    assert (result.letter, b"it went on in clear after STARTTLS" in result.text) == (b"Z", True)


def test_answers_a_moment_later(tmp_path: Path) -> None:
    """What comes in clear in a segment of its own breaks the handshake: it is never an answer."""
    world = TlsWorld(tmp_path)
    world.policy(":encrypt")
    with world.mx(STARTTLS=[["220 go ahead", f"!raw:{FORGED}", f"!tls:{world.certificate}"]]) as mx:
        with rspawn(world.home) as spawner:
            result = spawner.result(b"bob@x.test")
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert result.letter == b"Z"
