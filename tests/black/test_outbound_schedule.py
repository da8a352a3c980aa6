"""Whose turn it is: one big message, dead hosts and full queues hold up nobody."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.outbound import Mx, Outbound, rcpt_to, several_mx
from tests.harness.peers import SmtpSink
from tests.harness.rspawn import full_listener
from tests.harness.suite import DOMAIN, Suite
from tests.harness.turns import KINDS, turns_calls

Make = Callable[..., Suite]
BIG = 10_000  # recipients
AHEAD_MAX = 400  # deliveries of the big message that start before the small one
CALLS_MAX = 60_000  # in one turn, of 300,000 to 1,200,000 in all; 100,000 and more if a message is not sliced


@pytest.fixture
def mx(tmp_path: Path) -> Iterator[Mx]:
    yield from several_mx(tmp_path)


@pytest.mark.needs("smtp-sink")
@pytest.mark.parametrize("sender", [f"ann-return-@{DOMAIN}-@[]", f"ann@{DOMAIN}"])
def test_one_big_message_does_not_starve_others(make_suite: Make, sender: str) -> None:
    """With 10,000 recipients queued, one by one or in groups, a new message goes out before all but a few."""
    with SmtpSink() as sink:
        out = Outbound(make_suite(), {"": sink.port})
        envelope = f"F{sender}\0" + "".join(f"Tu{n}@d{n % 100}.test\0" for n in range(BIG)) + "\0"
        assert out.suite.queue(b"Subject: big\n\nx\n", envelope.encode()) == 0
        out.suite.wait_for_log(r"^delivery \d+: success")
        name = out.send("bob@x.test")
        out.wait_for_end(name)
        ahead = out.suite.log().partition(f"new msg {name}\n")[2].partition(f": msg {name} to remote ")[0]
        assert ahead.count("starting delivery") < AHEAD_MAX
        big = os.listdir(out.suite.home / "queue/state")
        assert big, "the big one is still there"
        out.suite.wait_until_idle(60)
    started = r"^starting delivery \d+: msg \w+ to remote (u\S+)$"
    out.suite.wait_for(lambda: len(set(re.findall(started, out.suite.log(), re.M))) == BIG, "a delivery to each")


def test_hosts_that_are_silent_hold_up_nobody(make_suite: Make, mx: Mx) -> None:
    """Mail for hosts that do not answer takes slots for one time-out; then it waits, and the slots are others'."""
    there = mx()
    held, port = full_listener()
    try:
        out = Outbound(make_suite(), {"silent.test": port, "": there.port}, timeoutconnect="3")
        for n in range(40):
            out.send(f"u{n}@silent.test")
        out.wait_for_end(out.send("bob@x.test"))
        assert "deferral" not in out.suite.log(), "not one of them has been waited for"
        state = out.suite.home / "queue/state"
        out.suite.wait_for(lambda: len(os.listdir(state)) == 40, "all of them deferred")
        attempts = re.findall(r"^starting delivery \d+: msg \w+ to remote u\d+@silent", out.suite.log(), re.M)
        assert len(attempts) < 10
    finally:
        for one in held:
            one.close()


def test_more_silent_hosts_than_places(make_suite: Make, mx: Mx) -> None:
    """While more hosts that nobody knows keep silent than there are places, a host that has served us gets its mail."""
    there = mx()
    silent = [full_listener() for _ in range(24)]
    try:
        ports = {f"s{n}.test": port for n, (_, port) in enumerate(silent)}
        out = Outbound(make_suite(), {**ports, "": there.port}, timeoutconnect="5")
        out.wait_for_end(out.send("bob@x.test"))
        for domain in ports:
            out.send(f"u@{domain}")
        out.suite.wait_for_log(r"^starting delivery \d+: msg \w+ to remote u@s14.test")
        out.wait_for_end(out.send("bob@x.test"))
        assert "deferral" not in out.suite.log()
    finally:
        for held, _ in silent:
            for one in held:
                one.close()


def test_a_hold_and_its_end(make_suite: Make, mx: Mx) -> None:
    """control/concurrencyremote 0 holds mail for other hosts, not for this one; SIGHUP lets it go."""
    there = mx()
    out = Outbound(make_suite(), {"": there.port}, concurrencyremote="0")
    name = out.send("bob@x.test", f"ann@{DOMAIN}")
    out.suite.wait_for_mail()
    assert not rcpt_to(there)
    out.suite.control("concurrencyremote", "20\n")
    out.suite.signal(signal.SIGHUP)
    out.wait_for_end(name)
    assert rcpt_to(there) == ["RCPT TO:<bob@x.test>"]


def test_no_more_at_once_than_allowed(make_suite: Make, mx: Mx) -> None:
    """However much waits, a destination that we know nothing of gets five deliveries at once, not more."""
    there = mx(DATA=["!hang"])
    out = Outbound(make_suite(), {"": there.port})
    for n in range(12):
        out.send(f"u{n}@x.test")
    out.suite.wait_for(lambda: there.lines().count("DATA") == 5, "five at once")
    out.send(f"ann@{DOMAIN}")
    out.suite.wait_for_mail()
    assert there.sessions() == 5
    there.process.kill()  # or the suite would wait for it at its end


def test_a_restart_keeps_what_is_known(make_suite: Make, mx: Mx) -> None:
    """After a stop and after a kill those of many recipients that have it do not get it again, and the rest waits."""
    there = mx(RCPT=["250 ok", "450 4.2.1 busy"] * 20)
    out = Outbound(make_suite(), {"": there.port}, maxrcptperdelivery="1")
    name = out.send(*(f"u{n}@x.test" for n in range(20)))
    before = out.suite.wait_for(lambda: (h := out.history(name)) and len(h) == 20 and h)
    out.suite.restart()
    out.suite.allowed_alerts.append("a supervisor was killed")
    out.suite.kill()
    out.suite.start()
    out.wait_for_end(out.send("bob@y.test"))
    assert out.history(name) == before
    assert len(rcpt_to(there)) == 21


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, BIG // 100])
def test_no_turn_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    """Be it one message to 10,000 or many to some, whatever becomes of it: no turn of send's does much of it.

    Counted in calls, which a busy machine does not change; `bin/bench turns` measures the time, which is below 40 ms.
    """
    monkeypatch.chdir(tmp_path)
    assert max(turns_calls(kind, count, BIG)) < CALLS_MAX
