"""A message's whole life, with a clock passed in: tries, warning, expiry, reports (qmail.md 7; RFC 3461, 3464)."""

import email
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from qm.disk import queue, state
from qm.send import handout
from qm.wire.delivery import Delivery, Health, Outcome, Result
from qm.wire.envelope import Envelope, Recipient
from tests.harness.sending import (
    DEFERRED,
    DELIVERED,
    MESSAGE,
    REFUSED,
    Answer,
    Clock,
    Sending,
    SharedDoor,
    always,
    outcome,
    write_message,
)

DAY_S = 86400
ANN = b"ann@me.example"
BOB = b"bob@dest.example"
NOW_S = int(time.time()) - 8 * DAY_S  # reports are born by the real clock: they shall not be older than their message
Make = Callable[..., Sending]
_TAKES_ALL, _DEFERS_ALL = always(DELIVERED), always(DEFERRED)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes lives of send, one after another, on one queue with a door."""
    monkeypatch.chdir(tmp_path)
    Path("queue").mkdir()
    queue.make()
    door = SharedDoor()
    lives: list[Sending] = []

    def another(
        local: Answer = _TAKES_ALL, remote: Answer = _DEFERS_ALL, clock: Clock | None = None, **controls: str
    ) -> Sending:
        if lives:
            lives[-1].close()
        lives.append(Sending(clock or Clock(NOW_S), local, remote, {k: f"{v}\n" for k, v in controls.items()}))
        return lives[-1]

    yield another
    lives[-1].close()
    door.close()


def put(*recipients: bytes | Recipient, sender: bytes = ANN, born_s: int = NOW_S) -> bytes:
    wanted = tuple(r if isinstance(r, Recipient) else Recipient(r) for r in recipients)
    return write_message(Envelope(sender, wanted, born_ns=born_s * 10**9))


def mail(life: Sending) -> list[tuple[bytes, bytes]]:
    """What was delivered here: recipient and text."""
    return [(delivery.recipients[0].address, text) for _, delivery, text in life.local.seen]


def test_tries_fall_at_squares_until_the_lifetime_is_over(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """With prompt failures a remote message is tried at (20k)^2 s; the last time at 608400 s; then it comes back."""
    life = make()
    put(BOB)
    life.run()
    assert [at_s - NOW_S for at_s in life.remote.times()] == [(20 * k) ** 2 for k in range(40)]
    ((to, text),) = mail(life)
    assert to == ANN
    assert b"I'm not going to try again; this message has been in the queue too long." in text
    assert all_failures(email.message_from_bytes(text)) == (set(), {BOB})
    assert not os.listdir(queue.CUR) and not os.listdir(queue.STATE)
    log = capfd.readouterr().err
    assert log.count(": deferral: ") == 39
    assert "\ndelivery 40: failure: Connected_to_1.2.3.4_but" in log


def test_a_local_message_has_its_own_squares(make: Make) -> None:
    """Local mail is tried at (10k)^2 s, the last time at 608400 s."""
    life = make(local=always(DEFERRED))
    put(ANN, sender=b"")
    life.run(NOW_S + 608400 + 1)
    tried = [at_s - NOW_S for at_s, delivery, _ in life.local.seen if delivery.recipients[0].address == ANN]
    assert tried == [(10 * k) ** 2 for k in range(79)]


def test_the_sender_is_warned_once(make: Make) -> None:
    """At the first try after control/delaywarning one warning leaves, which says until when we try."""
    life = make(delaywarning="14000")
    put(BOB)
    life.run(NOW_S + 20_000)
    ((_, text),) = mail(life)
    warned_s = life.local.times()[0] - NOW_S
    assert warned_s == 14400
    assert all_failures(email.message_from_bytes(text)) == ({BOB}, set())
    assert b"\nAction: delayed\nStatus: 4.3.2\n" in text
    assert b"\nWill-Retry-Until: " in text
    life.run()
    assert len(mail(life)) == 2


@pytest.mark.parametrize("notify, reports", [(b"NEVER", 0), (b"FAILURE", 1), (b"DELAY", 1), (b"DELAY,FAILURE", 2)])
def test_notify_decides_what_is_told_of_a_delay(make: Make, notify: bytes, reports: int) -> None:
    """RFC 3461 4.1: a warning only for DELAY, a failure only for FAILURE."""
    life = make(delaywarning="3600")
    put(Recipient(BOB, notify))
    life.run()
    assert len(mail(life)) == reports
    assert not os.listdir(queue.CUR)


def test_a_restart_keeps_the_schedule_and_the_warning(make: Make) -> None:
    """Another life of send tries when the first would have, and warns no second time."""
    life = make(delaywarning="3600")
    put(BOB)
    life.run(NOW_S + 5000)
    first = life.remote.times()
    assert len(mail(life)) == 1
    life = make(clock=life.clock, delaywarning="3600")
    life.run(NOW_S + 50_000)
    tried = [at_s - NOW_S for at_s in (*first, *life.remote.times())]
    assert tried == [(20 * k) ** 2 for k in range(len(tried))]
    assert not mail(life)


def test_recipients_have_their_own_fates(make: Make) -> None:
    """One gets it at once, one later, one never: each is tried no more often than needed, and the report names one."""
    answers: Mapping[bytes, list[Result]] = {
        b"good@a.example": [DELIVERED],
        b"later@b.example": [DEFERRED, DEFERRED, DELIVERED],
        b"never@c.example": [REFUSED],
    }

    def remote(delivery: Delivery) -> Outcome:
        results = tuple(answers[r.address].pop(0) for r in delivery.recipients)
        return Outcome(delivery.number, Health.UP, results)

    life = make(remote=remote)
    put(*answers)
    life.run()
    assert not any(answers.values())
    ((_, text),) = mail(life)
    assert all_failures(email.message_from_bytes(text)) == (set(), {b"never@c.example"})


def test_a_bounce_that_bounces_ends(make: Make) -> None:
    """A bounce that cannot be delivered goes to doublebounceto, and what that causes is dropped: no loop."""
    life = make(local=always(REFUSED), remote=always(REFUSED), doublebounceto="pm@other.example")
    put(BOB, sender=b"gone@me.example")
    life.run()
    assert [delivery.recipients[0].address for _, delivery, _ in life.local.seen] == [b"gone@me.example"]
    assert [(d.sender, d.recipients[0].address) for _, d, _ in life.remote.seen] == [
        (b"gone@me.example", BOB), (b"#@[]", b"pm@other.example"),
    ]  # fmt: skip
    assert not os.listdir(queue.CUR)


def test_an_address_with_a_line_end_fails(make: Make) -> None:
    """It cannot be handed to a spawner: it fails for good, with a report unless none is wanted; nothing stays."""
    life = make()
    put(b"b\nb@dest.example")
    put(Recipient(b"c\nc@dest.example", b"NEVER"))
    put(*(b"%d\n@dest.example" % n for n in range(2000)), sender=b"")
    life.run()
    assert not life.remote.seen
    assert [to for to, _ in mail(life)] == [ANN, b"postmaster@me.example"]
    assert not os.listdir(queue.CUR) and not os.listdir(queue.STATE)


def test_a_report_to_a_utf8_sender(make: Make) -> None:
    """It needs SMTPUTF8 itself, as its To field does; one to an ASCII sender does not (RFC 6531 3.5)."""
    life = make(remote=always(REFUSED))
    put("b\u00f6b@dest.example".encode(), sender=ANN)
    put(BOB, sender="\u00f6@me.example".encode())
    life.run()
    flags = {delivery.recipients[0].address: delivery.flags for _, delivery, _ in life.local.seen}
    assert flags == {ANN: b"8", "\u00f6@me.example".encode(): b"8U"}
    assert "\nTo: \u00f6@me.example\n".encode() in dict(mail(life))["\u00f6@me.example".encode()]


def test_more_reports_than_workers(make: Make) -> None:
    """Many messages that fail at once all get their reports."""
    life = make(remote=always(REFUSED))
    for n in range(50):
        put(b"u%d@dest.example" % n)
    life.run()
    named = {address for _, text in mail(life) for address in all_failures(email.message_from_bytes(text))[1]}
    assert named == {b"u%d@dest.example" % n for n in range(50)}


def test_a_report_names_all_of_many(make: Make) -> None:
    """3000 recipients that fail make one report, which names each of them; RFC 3461: a success is told apart."""
    life = make(remote=lambda d: outcome(d, REFUSED if d.recipients[0].address.startswith(b"u") else DELIVERED))
    put(*(b"u%d@d%d.example" % (n, n) for n in range(3000)), Recipient(b"ok@dest.example", b"SUCCESS"))
    life.run()
    texts = [email.message_from_bytes(text) for _, text in mail(life)]
    assert [all_failures(text)[1] for text in texts] == [{b"u%d@d%d.example" % (n, n) for n in range(3000)}, set()]
    assert b"\nFinal-Recipient: rfc822;ok@dest.example\nAction: relayed\n" in mail(life)[1][1]


def test_a_dead_destination_costs_no_deliveries(make: Make) -> None:
    """Once a destination has failed a window's worth it gets nothing for 300 s, and then one delivery at a time."""
    life = make(remote=lambda d: outcome(d, DEFERRED, Health.DEAD))
    for n in range(200):
        put(b"u%d@dead.example" % n)
    life.run(NOW_S + 350)
    assert len(life.remote.seen) <= 6
    assert len(os.listdir(queue.STATE)) == 200
    before = len(life.remote.seen)
    life.run(NOW_S + 450)
    assert len(life.remote.seen) - before <= 6


def test_a_dead_destination_comes_back(make: Make) -> None:
    """When it answers again everything that waited for it is delivered at its next try."""
    alive = False

    def remote(delivery: Delivery) -> Outcome:
        return outcome(delivery, DELIVERED) if alive else outcome(delivery, DEFERRED, Health.DEAD)

    life = make(remote=remote)
    for n in range(100):
        put(b"u%d@dead.example" % n)
    life.run(NOW_S + 350)
    alive = True
    life.run(NOW_S + 4000)
    assert not os.listdir(queue.CUR)


def test_other_destinations_do_not_wait_for_a_dead_one(make: Make) -> None:
    """Mail for another host leaves between two tries of the dead one's."""
    dead = always(DEFERRED, Health.DEAD)
    life = make(remote=lambda d: dead(d) if b"dead" in d.recipients[0].address else outcome(d, DELIVERED))
    for n in range(300):
        put(b"u%d@dead.example" % n)
    put(b"bob@alive.example")
    life.run(NOW_S + 100)
    assert b"bob@alive.example" in [d.recipients[0].address for _, d, _ in life.remote.seen[:8]]


def test_verp_goes_one_by_one(make: Make) -> None:
    """A VERP sender is told each recipient, in a delivery of its own; its bounce goes to the owner (qmail.md 7.7)."""
    life = make(remote=always(REFUSED))
    put(b"a@dest.example", b"b@dest.example", sender=b"list-return-@me.example-@[]")
    life.run()
    assert sorted((d.sender, [r.address for r in d.recipients]) for _, d, _ in life.remote.seen) == [
        (b"list-return-a=dest.example@me.example", [b"a@dest.example"]),
        (b"list-return-b=dest.example@me.example", [b"b@dest.example"]),
    ]
    assert [to for to, _ in mail(life)] == [b"list-return-@me.example"]


def test_recipients_of_one_domain_go_together(make: Make) -> None:
    """Up to control/maxrcptperdelivery of one destination are one delivery, never more than a record holds."""
    life = make(remote=always(DELIVERED), maxrcptperdelivery="1000")
    put(*(b"u%d@dest.example" % n for n in range(450)))
    life.run()
    assert [len(d.recipients) for _, d, _ in life.remote.seen] == [200, 200, 50]


def test_everything_is_due_at_once(make: Make) -> None:
    """SIGALRM: what waits is tried now, also where a destination is left alone."""
    life = make(remote=lambda d: outcome(d, DEFERRED, Health.DEAD))
    for n in range(10):
        put(b"u%d@dead.example" % n)
    life.run(NOW_S + 100)
    before = len(life.remote.seen)
    life.sender.all_due()
    life.run(NOW_S + 100)
    assert len(life.remote.seen) > before


def test_a_passed_on_success_is_not_ours_to_report(make: Make) -> None:
    """RFC 3461 5.2.2: where the next host took the DSN parameters, success is its to report; else we say relayed."""
    life = make(remote=lambda d: outcome(d, DELIVERED._replace(dsn=d.recipients[0].address.startswith(b"dsn"))))
    put(Recipient(b"dsn@a.example", b"SUCCESS"), Recipient(b"old@b.example", b"SUCCESS"), Recipient(ANN, b"SUCCESS"))
    life.run()
    reports = [text for to, text in mail(life) if b"Auto-Submitted" in text]
    assert len(reports) == 1
    assert b"\nFinal-Recipient: rfc822;old@b.example\nAction: relayed\nStatus: 2.0.0\n" in reports[0]
    assert b"\nFinal-Recipient: rfc822;ann@me.example\nAction: delivered\n" in reports[0]
    assert b"dsn@a.example" not in reports[0].partition(b"--- Below")[0]


def test_a_report_that_cannot_be_queued_repeats_no_delivery(make: Make) -> None:
    """Who has got the mail does not get it again because the queue would not take the report of success."""
    life = make(remote=_TAKES_ALL)
    put(Recipient(BOB, b"SUCCESS"))
    os.rename(queue.SOCKET, "queue/elsewhere")
    life.run(NOW_S + 60)
    assert len(life.remote.seen) == 1
    os.rename("queue/elsewhere", queue.SOCKET)
    life.run()
    assert len(life.remote.seen) == 1
    assert [b"Action: relayed" in text for to, text in mail(life) if to == ANN] == [True]
    assert not os.listdir(queue.CUR) and not os.listdir(queue.STATE)


def test_damage_between_two_deliveries(make: Make) -> None:
    """A message that is damaged while some still wait for it is not given out again, and put aside at its next try."""

    def damage(delivery: Delivery) -> Outcome:
        with open(os.path.join(os.fsencode(queue.CUR), delivery.id), "r+b") as file:
            file.write(b"damaged")
        return outcome(delivery, DELIVERED)

    life = make(local=damage, concurrencylocal=1)
    name = put(*(b"u%d@me.example" % n for n in range(5)))
    life.run()
    assert len(life.local.seen) == 1
    assert os.listdir(queue.BAD) == [name.decode()]
    assert not os.listdir(queue.CUR)
    letters = [one.letter for one in state.read(b"queue/state/" + name)]
    assert sorted(letters) == [b"K"] + [b"Z"] * 4


def test_a_large_message_is_never_given_out_in_part(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When descriptors run out at one delivery of a large message, the others still get all of it."""
    monkeypatch.setattr(handout, "PIECE", 100_000)
    text = MESSAGE + b"x" * 70 + b"\n" + b"line\n" * 80_000
    whole = handout.Handout.descriptor
    left = [1]

    def fail_once(self: handout.Handout) -> int:
        if self.is_large and left and os.path.exists("go"):
            left.pop()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return whole(self)

    def go(delivery: Delivery) -> Outcome:
        Path("go").touch()
        return outcome(delivery, DELIVERED)

    monkeypatch.setattr(handout.Handout, "descriptor", fail_once)
    life = make(local=go, concurrencylocal=1)
    wanted = tuple(Recipient(b"u%d@me.example" % n) for n in range(4))
    write_message(Envelope(b"", wanted, born_ns=NOW_S * 10**9), text)
    life.run()
    assert not left
    assert {len(given) for _, _, given in life.local.seen} == {len(text)}
    assert {d.recipients[0].address for _, d, _ in life.local.seen} == {one.address for one in wanted}
