"""What a login may send in an hour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.userd import spending
from qm.userd.spending import HOUR_S, Limits, Spending
from qm.wire.userquery import AskSpend, Spent, Verdict, marks

LIMITS = Limits(3, 10, 4)
YES = Spent(Verdict.YES, b"")


def ask(recipients: int = 1, *domains: bytes, name: bytes = b"ann") -> AskSpend:
    return AskSpend(name, recipients, marks(domains))


def test_messages() -> None:
    """The fourth message of an hour is too many, and that is news once; another login, and the next hour, are free."""
    spent = Spending()
    assert [spent.spend(ask(), LIMITS, 0.0) for _ in range(3)] == [YES] * 3
    assert spent.spend(ask(), LIMITS, 1.0) == Spent(Verdict.LATER, b"control/limitmessages: 3 in an hour", True)
    assert spent.spend(ask(), LIMITS, 2.0) == Spent(Verdict.LATER, b"control/limitmessages: 3 in an hour", False)
    assert spent.spend(ask(name=b"bob"), LIMITS, 2.0) == YES
    assert spent.spend(ask(name=b"ANN"), LIMITS, HOUR_S - 1).verdict is Verdict.LATER
    assert spent.spend(ask(), LIMITS, HOUR_S) == YES


def test_recipients() -> None:
    """A message with too many recipients is not counted, so a smaller one may still go."""
    spent = Spending()
    assert spent.spend(ask(8), LIMITS, 0.0) == YES
    assert spent.spend(ask(3), LIMITS, 0.0) == Spent(Verdict.LATER, b"control/limitrecipients: 10 in an hour", True)
    assert spent.spend(ask(2), LIMITS, 0.0) == YES


def test_domains() -> None:
    """Domains count once an hour, whatever their case."""
    spent = Spending()
    assert spent.spend(ask(1, b"a", b"b", b"c"), LIMITS, 0.0) == YES
    assert spent.spend(ask(1, b"d", b"e"), LIMITS, 0.0).text == b"control/limitdomains: 4 in an hour"
    assert spent.spend(ask(1, b"A", b"d"), LIMITS, 0.0) == YES


def test_no_limits() -> None:
    """0 is no limit, and then nothing grows."""
    spent = Spending()
    for number in range(100):
        assert spent.spend(ask(1000, b"%d" % number), Limits(0, 0, 0), 0.0) == YES
    assert not spent._hours[b"ann"].domains


def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the oldest hour is forgotten."""
    monkeypatch.setattr(spending, "LOGINS_MAX", 10)
    spent = Spending()
    for number in range(100):
        spent.spend(ask(name=b"%d" % number), LIMITS, float(number))
    assert len(spent) == 10


_domains = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]))


@given(st.lists(st.tuples(st.integers(0, 20), _domains, st.floats(0, 1))))
def test_never_over(messages: list[tuple[int, list[bytes], float]]) -> None:
    """Whatever is asked, what is let through in an hour is within all limits."""
    spent = Spending()
    through = [
        (recipients, domains)
        for recipients, domains, now_s in messages
        if spent.spend(ask(recipients, *domains), LIMITS, now_s) == YES
    ]
    assert len(through) <= LIMITS.messages
    assert sum(recipients for recipients, _ in through) <= LIMITS.recipients
    assert len({domain for _, domains in through for domain in domains}) <= LIMITS.domains
