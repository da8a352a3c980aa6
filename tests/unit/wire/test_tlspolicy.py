"""control/tlspolicy."""

import pytest

from qm.wire import tlspolicy
from qm.wire.tlspolicy import CLEAR, UNRULED, BadPolicy, Demand, Level, Rule, ladder

TABLE = {b"a.test": b"none", b".test": b"verify .Test mx", b"": b"Encrypt"}


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        (b"a.test", Rule(Level.NONE)),
        (b"b.test", Rule(Level.VERIFY, (b".test", b"mx"))),
        (b"test", Rule(Level.ENCRYPT)),
    ],
)
def test_find(host: bytes, rule: Rule) -> None:
    """The host, then each end of it, then the empty key."""
    assert tlspolicy.find(TABLE, host) == rule


def test_without_a_line() -> None:
    """What no line speaks of is the domain's own matter."""
    assert tlspolicy.find({b"a.test": b"none"}, b"b.test") == UNRULED


@pytest.mark.parametrize("value", [b"", b"secure", b"may x.test", b"%s"])
def test_nonsense(value: bytes) -> None:
    """A line that means nothing is refused, and named."""
    with pytest.raises(BadPolicy, match="a control file is broken"):
        tlspolicy.check({b"a.test": value})


def test_ladder() -> None:
    """Clear text comes last, and only where nobody demands TLS."""
    may = Demand(Level.MAY, b"may")
    trial = Demand(Level.VERIFY, b"MTA-STS", (b"mx.test",), trial=True)
    assert ladder(may) == (may, CLEAR)
    assert [step.level for step in ladder(trial)] == [Level.VERIFY, Level.MAY, Level.NONE]
    for level in (Level.ENCRYPT, Level.VERIFY, Level.DANE):
        assert ladder(Demand(level, b"x")) == (Demand(level, b"x"),)
