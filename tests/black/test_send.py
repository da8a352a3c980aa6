"""send: retries, bounces, signals, memory; with the real suite around it."""

import email
import os
import re
import signal
import smtplib
from collections.abc import Callable

import pytest
from flufl.bounce import all_failures

from qm.disk import state
from tests.harness.suite import DOMAIN, Suite

MESSAGE = b"From: bob@elsewhere.example\r\nSubject: hello\r\n\r\nbody\r\n"
ANN = f"ann@{DOMAIN}"


def _state(suite: Suite) -> list[state.Outcome]:
    """What is remembered of the one message that has a memory."""
    names = os.listdir(suite.home / "queue" / "state")
    return list(state.read(os.fsencode(suite.home / "queue" / "state" / names[0]))) if names else []


def _queue(suite: Suite, sender: str, *recipients: str, message: bytes = b"Subject: x\n\nbody\n") -> None:
    """By qm-queue: it takes any recipient."""
    envelope = f"F{sender}\0" + "".join(f"T{recipient}\0" for recipient in recipients) + "\0"
    done = suite.queue(message, envelope.encode())
    assert done == 0


def test_an_unknown_recipient_is_told_to_the_sender(suite: Suite) -> None:
    """A local sender gets one report that other programs can read, with the message in it; the queue is empty
    afterwards.
    """
    _queue(suite, ANN, f"nobody@{DOMAIN}", ANN)
    mail = suite.wait_for_mail(2)
    suite.wait_until_idle()
    bounce = next(text for text in mail if b"Hi. This is the" in text)
    _, permanent = all_failures(email.message_from_bytes(bounce))
    assert set(permanent) == {f"nobody@{DOMAIN}".encode()}
    assert b"Return-Path: <>\n" in bounce
    assert b"Subject: x" in bounce
    assert not os.listdir(suite.home / "queue" / "state")


def test_a_bounce_that_bounces_goes_to_the_postmaster_and_no_further(make_suite: Callable[[], Suite]) -> None:
    """The failure of a null sender's mail is a double bounce; the failure of that is dropped."""
    suite = make_suite().start()
    _queue(suite, "", f"nobody@{DOMAIN}")
    suite.wait_for_log(r"starting delivery \d+: msg \w+b to local postmaster@")
    suite.wait_until_idle()
    suite.control("doublebounceto", "nobody-at-all\n")
    suite.signal(signal.SIGHUP)
    suite.wait_for_log(r"read again|status")
    suite.restart()
    _queue(suite, "", f"nobody@{DOMAIN}")
    suite.wait_for_log(r"triple bounce: discarding")
    suite.wait_until_idle()


def test_the_log_is_on_descriptor_2(suite: Suite) -> None:
    """What send logs goes to descriptor 2, which is the logger's pipe; 0 and 1 are its spawners."""
    folder = f"/proc/{suite.pid_of('qm-send')}/fd"
    assert [os.readlink(f"{folder}/{fd}").partition(":")[0] for fd in range(3)] == ["socket", "socket", "pipe"]
    suite.wait_for_log(r"^status: local 0/10 remote 0/20$")


def test_a_maildir_that_is_missing_defers_until_it_is_there(suite: Suite) -> None:
    """Nothing is lost while a mailbox is missing, and SIGALRM tries at once when it is back."""
    suite.dot_qmail("ann", "./Later/\n", "-later")
    suite.send(f"ann-later@{DOMAIN}", MESSAGE)
    suite.wait_for_log(r"delivery \d+: deferral: .*4\.2\.1")
    outcome = suite.wait_for(lambda: _state(suite))[0]
    assert outcome.letter == b"Z" and outcome.next_s > outcome.at_s
    suite.maildir().rename(suite.home / "home" / "ann" / "Later")
    suite.signal(signal.SIGALRM)
    suite.wait_until_idle()
    (suite.home / "home" / "ann" / "Later").rename(suite.maildir())
    assert len(suite.mail()) == 1


def test_a_message_that_nobody_announced_is_taken_up(suite: Suite) -> None:
    """What lies in new/ without a word in the trigger is taken up at SIGALRM, not only at the next look."""
    suite.dot_qmail("ann", "./Later/\n", "-later")
    suite.send(f"ann-later@{DOMAIN}", MESSAGE)
    suite.wait_for(lambda: _state(suite))
    (name,) = os.listdir(suite.home / "queue" / "cur")
    other = name[:12] + ("0" if name[12] != "0" else "1") + name[13:]  # another ID, the same file
    (suite.home / "queue" / "new" / other).write_bytes((suite.home / "queue" / "cur" / name).read_bytes())
    owner = (suite.home / "queue" / "cur" / name).stat()
    os.chown(suite.home / "queue" / "new" / other, owner.st_uid, owner.st_gid)
    suite.signal(signal.SIGALRM)
    suite.wait_for_log(f"new msg {other}")


def test_the_schedule_survives_a_restart(suite: Suite) -> None:
    """A deferred message is not tried before its time because send was started anew, be it by order or by a crash."""
    suite.dot_qmail("ann", "./Later/\n", "-later")
    suite.send(f"ann-later@{DOMAIN}", MESSAGE)
    before = suite.wait_for(lambda: _state(suite))
    suite.restart()
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail(1)
    suite.kill()
    suite.start()
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail(2)
    assert _state(suite) == before


def test_a_message_that_is_too_old_comes_back(make_suite: Callable[[], Suite]) -> None:
    """The first try after queuelifetime is the last; its deferral is the failure that is reported."""
    suite = make_suite()
    suite.control("queuelifetime", "0\n")
    suite.start()
    suite.dot_qmail("ann", "./Later/\n", "-later")
    _queue(suite, ANN, f"ann-later@{DOMAIN}")
    suite.wait_for(lambda: suite.signal(signal.SIGALRM) or suite.mail(), "the report")
    (bounce,) = suite.mail()
    assert b"has been in the queue too long" in bounce
    suite.wait_until_idle()


def test_each_recipient_gets_it_once_whatever_the_others_do(suite: Suite) -> None:
    """While one recipient waits, those that have it do not get it again, after a kill neither."""
    suite.dot_qmail("ann", "./Later/\n", "-later")
    _queue(suite, "bob@elsewhere.example", ANN, f"ann-later@{DOMAIN}")
    suite.wait_for_log(r"delivery \d+: deferral")
    suite.wait_for_mail(1)
    suite.wait_for(lambda: len(_state(suite)) == 2)
    suite.kill()
    suite.start()
    suite.signal(signal.SIGALRM)
    suite.wait_for(lambda: len(re.findall("deferral", suite.log())) >= 2)
    suite.maildir().joinpath("../Later").resolve().symlink_to("Maildir")
    suite.signal(signal.SIGALRM)
    suite.wait_until_idle()
    assert len(suite.mail()) == 2


def test_one_big_message_does_not_hold_up_the_others(suite: Suite) -> None:
    """A message to many recipients leaves a turn to one that comes while it is delivered."""
    suite.dot_qmail("ann", "./Maildir/\n", "-default")
    count = 600
    _queue(suite, "bob@elsewhere.example", *(f"ann-{n}@{DOMAIN}" for n in range(count)))
    suite.wait_for_mail(1)
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail(count + 1, limit_s=60)
    suite.wait_until_idle()
    order = re.findall(rf"starting delivery \d+: msg \w+ to local (\S+)@{DOMAIN}", suite.log())
    assert order.index("ann") < count


def test_a_damaged_message_is_kept_and_not_delivered(make_suite: Callable[[], Suite]) -> None:
    """A queue file that fails its check goes to queue/bad with an alert, and holds up nothing."""
    suite = make_suite()
    suite.allowed_alerts.append("damaged")
    suite.start()
    suite.dot_qmail("ann", "./Later/\n", "-later")
    _queue(suite, "bob@elsewhere.example", f"ann-later@{DOMAIN}")
    suite.wait_for(lambda: _state(suite))
    (name,) = os.listdir(suite.home / "queue" / "cur")
    with open(suite.home / "queue" / "cur" / name, "r+b") as file:
        file.seek(30)
        file.write(b"\0\0")
    suite.signal(signal.SIGALRM)
    suite.wait_for_log("alert: .* is damaged")
    assert os.listdir(suite.home / "queue" / "bad") == [name]
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail(1)


def test_a_large_message_goes_through(suite: Suite) -> None:
    """30 MB arrive as they were sent, and small mail is not held up."""
    body = b"".join(b"%08d %070d\r\n" % (n, n) for n in range(370_000))
    suite.send([ANN, ANN], b"Subject: large\r\n\r\n" + body)
    suite.send(ANN, MESSAGE)
    mail = suite.wait_for_mail(2, limit_s=60)
    suite.wait_until_idle(limit_s=60)
    large = [text for text in suite.mail() if len(text) > 10_000_000]
    assert len(mail) >= 2 and large
    assert large[0].endswith(body.replace(b"\r\n", b"\n"))


def test_success_is_reported_when_it_was_asked_for(suite: Suite) -> None:
    """NOTIFY=SUCCESS on local mail gives one report, NOTIFY=NEVER none for a failure (RFC 3461 4.1)."""
    with suite.smtp() as client:
        client.ehlo()
        client.sendmail(ANN, [ANN], MESSAGE, mail_options=["ENVID=QQ1"], rcpt_options=["NOTIFY=SUCCESS"])
    mail = suite.wait_for_mail(2)
    report = next(text for text in mail if b"Action: delivered" in text)
    assert b"Original-Envelope-Id: QQ1" in report
    suite.dot_qmail("ann", "|exit 100\n", "-fails")
    with suite.smtp() as client:
        client.ehlo()
        client.sendmail(ANN, [f"ann-fails@{DOMAIN}"], MESSAGE, rcpt_options=["NOTIFY=NEVER"])
    suite.wait_for_log(r"delivery \d+: failure")
    suite.wait_until_idle()
    assert len(suite.mail()) == 2


def test_control_files_take_effect_at_sighup(suite: Suite) -> None:
    """A domain that has become local is delivered here after SIGHUP; a broken file keeps the last good value."""
    suite.control("virtualdomains", "new.example:ann-new\n")
    suite.dot_qmail("ann", "./Maildir/\n", "-new-default")
    suite.signal(signal.SIGHUP)
    suite.wait_for(lambda: _queue(suite, "b@x.example", "any@new.example") or suite.mail(), "local delivery")
    suite.control("concurrencylocal", "many\n")
    suite.signal(signal.SIGHUP)
    suite.wait_for_log(r"warning: control/concurrencylocal:1: .*keeping the last good value")
    count = len(suite.mail())
    _queue(suite, "b@x.example", "any@new.example")
    suite.wait_for_mail(count + 1)


@pytest.mark.parametrize("name", ["qm-lspawn", "qm-send", "qm-queued", "qm-userd"])
def test_a_program_that_dies_is_started_again(make_suite: Callable[[], Suite], name: str) -> None:
    """Whichever of the programs is killed, the suite comes back by itself and no mail is lost."""
    suite = make_suite()
    suite.allowed_alerts.append(".")
    suite.start()
    os.kill(suite.pid_of(name), signal.SIGKILL)
    suite.wait_for_log("qm-start: alert: .* ended; stopping")
    suite.wait_for(lambda: _accepts(suite), "mail is accepted again", 60)
    suite.wait_for_mail(1, limit_s=60)
    suite.wait_until_idle(60)


def _accepts(suite: Suite) -> bool:
    with suite.smtp() as client:
        client.ehlo()
        client.mail("bob@elsewhere.example")
        try:
            return client.rcpt(ANN)[0] == 250 and client.data(MESSAGE)[0] == 250
        except smtplib.SMTPDataError:
            return False  # said instead of 354
