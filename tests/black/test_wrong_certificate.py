"""Attack: somebody in between, or a server gone wrong, with a certificate that is not the one (RFC 6125, RFC 9525)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.certificates import DAY, Authority
from tests.harness.rspawn import rspawn
from tests.harness.tlspeers import TlsWorld

CASES: dict[str, tuple[Callable[[TlsWorld], Path], bytes]] = {
    "its own authority's": (lambda world: Authority(world.folder).issue("x.test"), b"I do not trust its certificate: "),
    "expired": (lambda world: world.ca.issue("x.test", life=-DAY), b"certificate has expired"),
    "another's": (lambda world: world.ca.issue("y.test"), b"its certificate is for another name"),
    "one above": (lambda world: world.ca.issue("test"), b"its certificate is for another name"),
    "one below": (lambda world: world.ca.issue("a.x.test"), b"its certificate is for another name"),
    "too wide": (lambda world: world.ca.issue("*.test", "*"), b"its certificate is for another name"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_wrong_certificate_gets_no_mail(tmp_path: Path, kind: str) -> None:
    """Under verify nothing of a message is said to a server whose certificate is not as it must be."""
    make, why = CASES[kind]
    world = TlsWorld(tmp_path)
    world.policy(":verify x.test")
    with world.mx(make(world)) as mx, rspawn(world.home) as spawner:
        result = spawner.result(b"bob@x.test")
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert (result.letter, result.status, why in result.text) == (b"Z", b"4.7.5", True), result.text


def test_roots_that_cannot_be_read(tmp_path: Path) -> None:
    """Without roots nobody is trusted, and the report names the file."""
    world = TlsWorld(tmp_path)
    world.policy(":verify x.test")
    world.home.control("tlsroots", "/nowhere/roots.pem\n")
    with world.mx(), rspawn(world.home) as spawner:
        assert b"control/tlsroots cannot be read" in spawner.result(b"bob@x.test").text
