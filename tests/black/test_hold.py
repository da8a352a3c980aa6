"""Mail over a limit of its login: taken, held, released, deleted, given up (docs/INTERNALS.md 2.3)."""

import os
import re
import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.outbound import read_report
from tests.harness.suite import BIN, DOMAIN, HOST, Suite

ANN = f"ann@{DOMAIN}"
BOB = f"bob@{DOMAIN}"
Make = Callable[[], Suite]


@pytest.fixture
def limited(make_suite: Make) -> Suite:
    """A suite in which bob may send one message in an hour, and two more are held; postmaster's mail is ann's."""
    suite = make_suite()
    suite.control("authclear", "1\n")
    suite.control("limitmessages", "1\n")
    suite.control("limitheld", "2\n")
    suite.service("submit", f"SUBMISSION= tcpserver -H -R {HOST} 0 qm-smtpd")
    suite.add_user("bob", "secret two")
    suite.dot_qmail("alias", "&ann\n", "-postmaster")
    return suite.start()


def send(suite: Suite, count: int, sender: str = BOB) -> list[int]:
    """The answers to *count* messages of bob to ann, each with its number as subject."""
    codes = []
    with smtplib.SMTP(HOST, suite.port("submit"), timeout=30) as smtp:
        smtp.login("bob", "secret two")
        for number in range(count):
            smtp.mail(sender)
            smtp.rcpt(ANN)
            codes.append(smtp.docmd("DATA")[0])
            smtp.send(f"Subject: number {number}\r\n\r\nx\r\n.\r\n")
            codes[-1] = smtp.getreply()[0]
    return codes


def hold(suite: Suite, *words: str, code: int = 0) -> str:
    """What qm hold says."""
    done = suite.run("qm", "hold", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout.decode()


def held(suite: Suite) -> list[str]:
    return sorted(os.listdir(suite.home / "queue/held"))


def subjects(suite: Suite) -> list[str]:
    return sorted(re.search(rb"^Subject: (.*)$", mail, re.MULTILINE)[1].decode() for mail in suite.mail())  # type: ignore[index]


def test_over_the_limit(limited: Suite) -> None:
    """Over the limit mail is taken and not delivered; over limitheld it is deferred; postmaster is told once."""
    assert send(limited, 5) == [250, 250, 250, 451, 451]
    limited.wait_for_mail(2)
    limited.wait_until_idle()
    assert subjects(limited) == ["bob has reached a limit", "number 0"]
    notice = next(mail for mail in limited.mail() if b"has reached" in mail)
    assert f"is from <{BOB}>, and came from {HOST}.".encode() in notice and b"control/limitmessages: 1 in" in notice
    assert len(held(limited)) == 2
    limited.wait_for_log("code=250 .* why=held:limitmessages")
    limited.wait_for_log("code=451 .* why=you_have_sent_too_much")


def test_release_and_delete(limited: Suite) -> None:
    """What the notice tells to type works; what is released is delivered, what is deleted is gone, both only once."""
    send(limited, 3)
    limited.wait_for_mail(2)
    first, second = held(limited)
    lines = hold(limited, "list").splitlines()
    assert [line[:18] for line in lines] == [first, second]
    assert all(f"login bob by limitmessages, at {HOST}  <{BOB}>, 1 recipients" in line for line in lines)
    assert hold(limited, "list", "ann") == ""
    shown = hold(limited, "show", first)
    assert f"to <{ANN}>\n" in shown and "Subject: number 1\n" in shown
    hold(limited, "release", first)
    hold(limited, "delete", f"#{second}")
    limited.wait_for_mail(3)
    limited.wait_until_idle()
    assert subjects(limited) == ["bob has reached a limit", "number 0", "number 1"]
    assert held(limited) == []
    for verb in ("release", "delete"):
        assert "is not held" in hold(limited, verb, first, code=1)
    hold(limited, "show", first, code=100)
    hold(limited, "release", "../new/x", code=2)
    assert send(limited, 1) == [250]
    assert len(held(limited)) == 1


def test_who_looks_sees_it(limited: Suite) -> None:
    """mailq, qread, qstat, queue-show and rc status tell what is held, and why."""
    send(limited, 2)
    limited.wait_for_mail(2)
    limited.wait_until_idle()
    (name,) = held(limited)
    assert re.search(rf"#{name}  \d+  <{BOB}>  held\n", limited.run("mailq").stdout.decode())
    assert b'"held": "limitmessages", "login": "bob"' in limited.run("qm-qread", "--json").stdout
    assert limited.run("qm-qstat").stdout.endswith(b"messages in queue but held: 1\n")
    said = limited.run("qm-queue-show", name).stdout
    assert b"held for: bob, by control/limitmessages\n" in said and b"  it is held, since" in said
    assert b", 1 held, " in limited.run("qm-rc", "status").stdout


def test_it_outlives_everything(limited: Suite) -> None:
    """A restart, SIGALRM and sendmail -q do not let go what is held."""
    send(limited, 2)
    limited.wait_for_mail(2)
    limited.restart()
    limited.signal(14)
    limited.wait_for_log("status: local")
    assert send(limited, 1) == [250]
    limited.wait_for_mail(3)
    limited.wait_until_idle()
    assert len(held(limited)) == 1
    assert subjects(limited) == ["bob has reached a limit", "number 0", "number 0"]


def test_given_up(limited: Suite) -> None:
    """What nobody releases goes back to its sender when its time in the queue is over, and was never delivered."""
    send(limited, 2)
    limited.wait_for_mail(2)
    limited.control("queuelifetime", "0\n")
    limited.restart()
    (text,) = limited.wait_for_mail(name="bob")
    report = read_report(text)
    assert (report.failed, report.recipients[0]["Status"]) == ({ANN}, "5.7.1")
    assert "had sent more than allowed" in report.people
    limited.wait_until_idle()
    assert held(limited) == os.listdir(limited.home / "queue/state") == []
    assert "number 1" not in subjects(limited)


@pytest.mark.needs_root
def test_who_may_release(limited: Suite) -> None:
    """Nobody but root and the queue's users can look at, release or delete what is held."""
    send(limited, 2)
    (name,) = held(limited)
    for verb in ("list", "show", "release", "delete"):
        words = [verb] if verb == "list" else [verb, name]
        done = subprocess.run(
            ["/usr/bin/python3", "-IS", str(BIN / "qm"), "hold", "--home", str(limited.home), *words],
            env=limited.env, cwd="/", user=64999, group=64999, extra_groups=[], capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0, (verb, done.stdout)
        assert name.encode() not in done.stdout
    assert held(limited) == [name]


def test_a_damaged_one(limited: Suite) -> None:
    """A held file that fails its check is named, hinders no other, and is put aside when its time is over."""
    limited.allowed_alerts.append("is damaged")
    send(limited, 3)
    first, second = held(limited)
    path = limited.home / "queue/held" / first
    path.write_bytes(path.read_bytes()[:-3])
    assert f"{first}  is damaged" in hold(limited, "list", code=111)
    assert second in hold(limited, "list", code=111)
    limited.control("queuelifetime", "0\n")
    limited.restart()
    limited.wait_for(lambda: Path(limited.home / "queue/bad" / first).exists(), "the damaged one in bad/")
    limited.wait_for_mail(name="bob")
