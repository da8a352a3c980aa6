"""Mail for other hosts, through the whole suite: it leaves, or waits, or comes back with a report."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from bench import peers as mta
from tests.harness.outbound import ANN, DSN, MESSAGE, Mx, Outbound, mail_from, rcpt_to, read_report, several_mx
from tests.harness.peers import DnsAnswerer, SmtpSink, free_port
from tests.harness.suite import DOMAIN, Suite

BOB, EVE, DAN = "bob@x.test", "eve@x.test", "dan@x.test"
Make = Callable[..., Suite]
STEPS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")


@pytest.fixture
def mx(tmp_path: Path) -> Iterator[Mx]:
    yield from several_mx(tmp_path)


# It leaves


def test_it_leaves_as_it_came(make_suite: Make, mx: Mx) -> None:
    """Another host gets the message byte for byte, below our trace, and the queue is empty afterwards."""
    there = mx()
    out = Outbound(make_suite(), {"x.test": there.port})
    name = out.send(BOB)
    out.wait_for_end(name)
    (text,) = there.texts()
    assert text.encode().endswith(MESSAGE.replace(b"\r\n.", b"\r\n.."))
    assert text.startswith("Received: ") and name in text
    assert mail_from(there)[0].startswith(f"MAIL FROM:<{ANN}> SIZE=")
    out.suite.wait_until_idle()
    assert not os.listdir(out.suite.home / "queue/state")


@pytest.mark.needs("smtp-sink")
def test_every_sink_gets_what_it_should(make_suite: Make) -> None:
    """Of smtp-sink's modes: odd ones are served; 4xx, hang-ups and a relay that turns us away wait; 5xx come back."""
    modes = {
        "success": [(), ("-e",), ("-p",), ("-8",), ("-P",), ("-N",), ("-E",), ("-w", "1"), ("-W", ".:1"), ("-H", "1")],
        "deferral": [*[(option, step) for option in ("-q", "-Q", "-r") for step in STEPS], ("-f", "CONNECT")],
        "failure": [("-f", step) for step in STEPS[2:]],
    }
    options = [mode for some in modes.values() for mode in some]
    wanted = [word for word, some in modes.items() for _ in some]
    with ExitStack() as stack:
        sinks = [stack.enter_context(SmtpSink(*mode)) for mode in options]
        out = Outbound(make_suite(), {f"s{n}.test": sink.port for n, sink in enumerate(sinks)})
        addresses = [f"bob@s{n}.test" for n in range(len(sinks))]
        out.send(*addresses)
        assert [out.ended(address) for address in addresses] == wanted
        refused = {address for address, word in zip(addresses, wanted, strict=True) if word == "failure"}
        names = os.listdir(out.suite.home / "queue/cur")
        out.suite.wait_for(lambda: len(out.history(names[0])) == len(sinks), "every outcome written")
        letters = {outcome.recipient: outcome.letter for outcome in out.history(names[0])}
        assert {addresses[n] for n, letter in letters.items() if letter == b"D"} == refused


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix_takes_it(make_suite: Make) -> None:
    """A real MTA gets mail of any shape, byte for byte; what is larger than it takes comes back to the sender."""
    suite = make_suite()
    suite.control("me", "me.example\n")
    suite.control("locals", "me.example\n")
    with mta.postfix() as postfix:
        out = Outbound(suite, {DOMAIN: postfix.port})
        shapes = [_HEADER % n + b"\r\n" + body for n, body in enumerate(_BODIES)]
        for shape in shapes:
            out.send(ANN, message=shape, sender="ann@me.example", mail=["BODY=8BITMIME"])
        suite.wait_for(lambda: len(os.listdir(postfix.maildir / "new")) == len(shapes), "all in Postfix's Maildir", 30)
        got = sorted(path.read_bytes() for path in (postfix.maildir / "new").iterdir())
        for shape in shapes:
            assert [text for text in got if text.endswith(shape.replace(b"\r\n", b"\n"))], shape[:100]
        out.send(ANN, message=b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 150_000, sender="ann@me.example")
        report = out.report()
    assert report.failed == {ANN}
    assert report.recipients[0]["Status"] == "5.3.4"


_HEADER = b"From: <ann@me.example>\r\nDate: Tue, 24 Nov 2026 03:40:36 +0000\r\nMessage-ID: <%d@me.example>\r\n"  # whole
_BODIES = (
    b"plain\r\n",
    b".\r\n..\r\n.leading\r\n",
    "\u00fcml\u00e4ut\r\n".encode(),
    b"x" * 900 + b"\r\n",
    b"\r\n\r\n\r\n",
    b"".join(b"%d\r\n" % n for n in range(30_000)),
    b"From here\r\n>From there\r\n",
)


def test_another_suite_takes_it(make_suite: Make) -> None:
    """From one of us to another: delivered there; an unknown user comes back with what the other one said."""
    there = make_suite().start()
    here = make_suite()
    here.control("me", "me.example\n")
    here.control("locals", "me.example\n")
    here.control("rcpthosts", "me.example\n")
    out = Outbound(here, {DOMAIN: there.smtp_port})
    out.send(ANN, f"nobody@{DOMAIN}", sender="ann@me.example")
    there.wait_for_mail()
    report = read_report(here.wait_for_mail()[0])
    assert report.failed == {f"nobody@{DOMAIN}"}
    (recipient,) = report.recipients
    assert (recipient["Status"], recipient["Remote-MTA"]) == ("5.1.1", "dns;[127.0.0.1]")
    assert recipient["Diagnostic-Code"].startswith("smtp;550 5.1.1 ")
    there.wait_until_idle()
    here.wait_until_idle()


def test_many_messages_share_a_session(make_suite: Make, mx: Mx) -> None:
    """Messages to one host one after another go over one connection."""
    there = mx()
    out = Outbound(make_suite(), {"": there.port})
    for n in range(10):
        out.wait_for_end(out.send(f"u{n}@x.test"))
    assert len(there.texts()) == 10
    assert there.sessions() == 1


def test_recipients_of_one_domain_go_in_one_transaction(make_suite: Make, mx: Mx) -> None:
    """Up to control/maxrcptperdelivery recipients share a transaction; the message travels once for them."""
    there = mx()
    out = Outbound(make_suite(), {"": there.port}, maxrcptperdelivery="20")
    out.wait_for_end(out.send(*(f"u{n}@x.test" for n in range(50))))
    assert sorted(rcpt_to(there)) == sorted(f"RCPT TO:<u{n}@x.test>" for n in range(50))
    assert len(there.texts()) == 3


def test_a_verp_sender_names_each_recipient(make_suite: Make, mx: Mx) -> None:
    """Each recipient is alone in its transaction; a failure comes back to the list's owner address."""
    there = mx(RCPT=["550 5.1.1 unknown"])
    suite = make_suite()
    out = Outbound(suite, {"": there.port})
    suite.dot_qmail("ann", "./Maildir/\n", "-return-")
    envelope = f"Fann-return-@{DOMAIN}-@[]\0T{BOB}\0T{EVE}\0\0".encode()
    assert suite.queue(b"Subject: list\n\nx\n", envelope) == 0
    report = out.report()
    assert sorted(line.partition(" SIZE")[0] for line in mail_from(there)) == [
        f"MAIL FROM:<ann-return-bob=x.test@{DOMAIN}>", f"MAIL FROM:<ann-return-eve=x.test@{DOMAIN}>",
    ]  # fmt: skip
    assert report.failed == {BOB, EVE}
    assert b"\nDelivered-To: ann-return-@" in report.text


def test_some_of_a_transaction(make_suite: Make, mx: Mx) -> None:
    """Each recipient of a transaction has its own fate: accepted, refused for good, and for now."""
    there = mx(RCPT=["250 ok", "550 5.1.1 no such user", "450 4.2.1 busy", "250 ok"])
    out = Outbound(make_suite(), {"": there.port})
    name = out.send(BOB, EVE, DAN)
    out.suite.wait_for(lambda: len(out.history(name)) == 3)
    assert {o.recipient: o.letter for o in out.history(name)} == {0: b"K", 1: b"D", 2: b"Z"}
    out.try_again(lambda: f"end msg {name}" in out.suite.log(), "the third recipient")
    report = out.report()
    assert report.failed == {EVE}
    assert [line.count(DAN) for line in rcpt_to(there)] == [0, 0, 1, 1]


def test_eight_bits_and_utf8(make_suite: Make, mx: Mx) -> None:
    """BODY=8BITMIME and SMTPUTF8 are passed on where offered; where SMTPUTF8 is needed and missing, mail comes back."""
    able = mx(EHLO=["250-mx.test\r\n250-8BITMIME\r\n250 SMTPUTF8"])
    unable = mx(EHLO=["250-mx.test\r\n250 8BITMIME"])
    out = Outbound(make_suite(), {"able.test": able.port, "": unable.port})
    text = "Subject: gr\u00fc\u00dfe\r\n\r\n\u00fc\r\n".encode()
    with out.suite.smtp() as client:
        client.ehlo()
        for host in ("able", "unable"):
            client.sendmail(ANN, [f"b\u00f6b@{host}.test"], text, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    report = out.report()
    assert any("BODY=8BITMIME" in line and "SMTPUTF8" in line for line in mail_from(able))
    assert able.texts()[0].encode("latin-1").endswith(text)
    assert not unable.texts()
    assert report.recipients[0]["Status"] == "5.6.7"
    assert report.recipients[0]["Final-Recipient"] == "utf-8;b\\x{F6}b@unable.test"
    assert "<b\u00f6b@unable.test>:" in report.people
    out.suite.wait_until_idle()


# It waits


@pytest.mark.parametrize(
    "script",
    [
        {"MAIL": ["451 4.3.0 later", "250 ok"]},
        {"greeting": ["450 busy", "220 mx.test"]},
        {"dot": ["452 4.3.1 full", "250 ok"]},
        {"greeting": ["!close", "220 mx.test"]},
    ],
)
def test_it_is_tried_again(make_suite: Make, mx: Mx, script: dict[str, list[str]]) -> None:
    """After a 4xx or a hang-up it waits for its time, and leaves when it is due; SIGALRM makes it due."""
    there = mx(**script)
    out = Outbound(make_suite(), {"": there.port})
    name = out.send(BOB)
    (outcome,) = out.suite.wait_for(lambda: out.history(name))
    assert outcome.letter == b"Z" and 0 < outcome.next_s - outcome.at_s < 600  # 400, and more the later it began
    out.try_again(lambda: f"end msg {name}" in out.suite.log(), "the second try")
    assert there.texts()[-1].endswith("last\r\n")
    assert not out.suite.mail()


def test_the_next_exchanger(make_suite: Make, mx: Mx, tmp_path: Path) -> None:
    """Where the best exchanger refuses the connection or greets with 4xx, the next one gets the message, at once."""
    port = free_port()
    suite = make_suite()
    suite.control("notipme", "127.0.0.2\n127.0.0.3\n127.0.0.4\n")
    busy, good = mx(f"127.0.0.3/{port}", greeting=["421 busy", "421 busy"]), mx(f"127.0.0.4/{port}")
    records = {"x.test MX": {"answer": ["10 a.x.test.", "20 b.x.test.", "30 c.x.test."]}}
    records |= {f"{name}.x.test A": {"answer": [f"127.0.0.{n}"]} for n, name in enumerate("abc", 2)}
    with DnsAnswerer(tmp_path, records) as dns:
        suite.control("dnsservers", f"127.0.0.1:{dns.port}\n")
        suite.control("smtproutes", f"::{port}\n")
        out = Outbound(suite)
        out.wait_for_end(out.send(BOB))
    assert busy.sessions() == 1
    assert len(good.texts()) == 1


def test_a_destination_that_is_down(make_suite: Make) -> None:
    """Where nobody listens the mail waits, and other destinations are served meanwhile."""
    with SmtpSink() as sink:
        out = Outbound(make_suite(), {"down.test": free_port(), "": sink.port})
        for n in range(30):
            out.send(f"u{n}@down.test")
        out.wait_for_end(out.send(BOB))
        out.suite.wait_for(lambda: len(os.listdir(out.suite.home / "queue/state")) == 30, "all of them deferred")
        attempts = re.findall(r"starting delivery \d+: msg \w+ to remote u\d+@down\.test", out.suite.log())
        assert len(attempts) < 10
        assert "could_not_be_reached" not in out.suite.log()


# It comes back


def test_a_report_says_everything(make_suite: Make, mx: Mx) -> None:
    """A refused recipient's report has every field of RFC 3464, and the message, for the right address."""
    there = mx(EHLO=[DSN], RCPT=["550-5.1.1 no such\r\n550 5.1.1 user here"])
    out = Outbound(make_suite(), {"": there.port}, helohost="out.test.example")
    name = out.send(BOB, mail=["ENVID=QQ+2B1"], rcpt=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;Bob+2Bx@old.test"])
    report = out.report()
    assert report.failed == {"Bob+x@old.test"}
    assert report.fields["Reporting-MTA"] == "dns;test.example"
    assert report.fields["Original-Envelope-Id"] == "QQ+1"
    assert parsedate_to_datetime(report.fields["Arrival-Date"])
    (recipient,) = report.recipients
    assert recipient == {
        "Original-Recipient": "rfc822;Bob+x@old.test",
        "Final-Recipient": f"rfc822;{BOB}",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns;[127.0.0.1]",
        "Diagnostic-Code": "smtp;550 5.1.1 no such 5.1.1 user here",
    }
    assert report.people.startswith("Hi. This is the")
    assert "Remote host said: 550-5.1.1 no such\n550 5.1.1 user here\n" in report.people
    assert report.returned.get_payload()[0]["Subject"] == "hello"  # type: ignore[index,union-attr]
    assert b"Return-Path: <>\n" in report.text
    out.suite.wait_for_log(f"^bounce msg {name} qp {name}b$")


def test_an_unknown_domain_comes_back(make_suite: Make, tmp_path: Path) -> None:
    """A domain that does not exist, or takes no mail (RFC 7505), is told at once."""
    suite = make_suite()
    with DnsAnswerer(tmp_path, {"null.test MX": {"answer": ["0 ."]}}) as dns:
        suite.control("dnsservers", f"127.0.0.1:{dns.port}\n")
        out = Outbound(suite)
        out.send("bob@gone.test", "eve@null.test")
        report = out.report()
    assert report.failed == {"bob@gone.test", "eve@null.test"}
    assert {r["Final-Recipient"]: r["Status"] for r in report.recipients} == {
        "rfc822;bob@gone.test": "5.1.2", "rfc822;eve@null.test": "5.1.10",
    }  # fmt: skip
    assert not any("Remote-MTA" in r or "Diagnostic-Code" in r for r in report.recipients)


def test_what_is_too_old_comes_back(make_suite: Make, mx: Mx) -> None:
    """The first try after control/queuelifetime is the last: the report has the last deferral's words and class 5."""
    there = mx(RCPT=["450 4.2.1 mailbox busy"])
    out = Outbound(make_suite(), {"": there.port}, queuelifetime="1")
    out.send(BOB)
    out.try_again(out.suite.mail, "the report")
    report = out.report()
    assert report.failed == {BOB}
    assert "this message has been in the queue too long" in report.people
    assert report.recipients[0]["Status"] == "5.2.1"
    assert report.recipients[0]["Diagnostic-Code"] == "smtp;450 4.2.1 mailbox busy"


@pytest.mark.parametrize("notify, warned", [((), True), (["NOTIFY=DELAY"], True), (["NOTIFY=FAILURE"], False)])
def test_a_delay_is_told_once(make_suite: Make, mx: Mx, notify: list[str], warned: bool) -> None:
    """After control/delaywarning the sender is warned once, unless NOTIFY leaves DELAY out (RFC 3461 4.1)."""
    there = mx(MAIL=["451 4.3.0 later"])
    out = Outbound(make_suite(), {"": there.port}, delaywarning="1")
    name = out.send(BOB, rcpt=notify)
    (first, *_) = out.suite.wait_for(lambda: out.history(name))
    out.try_again(lambda: out.history(name)[-1].at_s >= first.at_s + 2, "a try when it is old enough")
    tries = len(out.history(name))
    out.try_again(lambda: len(out.history(name)) > tries + 2, "more tries")
    assert len(out.suite.mail()) == warned
    if warned:
        report = out.report()
        assert (report.delayed, report.failed) == ({BOB}, set())
        assert report.recipients[0]["Action"] == "delayed"
        assert "Will-Retry-Until" in report.recipients[0]


def test_never_is_never(make_suite: Make, mx: Mx) -> None:
    """NOTIFY=NEVER: a failure is told nobody, nor is a success; NOTIFY=SUCCESS alone hides a failure too."""
    there = mx(RCPT=["550 5.1.1 unknown"])
    out = Outbound(make_suite(), {"": there.port})
    for notify in ("NEVER", "SUCCESS", "DELAY"):
        out.wait_for_end(out.send(BOB, rcpt=[f"NOTIFY={notify}"]))
    out.suite.wait_until_idle()
    assert not out.suite.mail()


def test_success_is_told_by_who_knows(make_suite: Make, mx: Mx) -> None:
    """Asked for success, we pass the wish on with its parameters; where DSN is not offered, we report relayed."""
    able, unable = mx(EHLO=[DSN]), mx()
    out = Outbound(make_suite(), {"able.test": able.port, "": unable.port})
    name = out.send(
        "bob@able.test", mail=["RET=HDRS", "ENVID=QQ1"], rcpt=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob@old.test"]
    )
    out.wait_for_end(name)
    assert mail_from(able)[0].endswith(" RET=HDRS ENVID=QQ1")
    assert rcpt_to(able) == ["RCPT TO:<bob@able.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@old.test"]
    assert not out.suite.mail()
    out.send("eve@unable.test", rcpt=["NOTIFY=SUCCESS"])
    report = out.report()
    assert (report.failed, report.delayed) == (set(), set())
    assert report.recipients[0]["Action"] == "relayed"
    assert report.recipients[0]["Final-Recipient"] == "rfc822;eve@unable.test"
    assert not report.people.startswith("Hi. This is the")
    assert rcpt_to(unable) == ["RCPT TO:<eve@unable.test>"]


@pytest.mark.parametrize(
    "ret, size, most, kind",
    [
        ((), 100, None, "message/rfc822"),
        (["RET=FULL"], 100, None, "message/rfc822"),
        (["RET=HDRS"], 100, None, "text/rfc822-headers"),
        ((), 3000, "2000", "text/rfc822-headers"),
        ((), 100_000, "0", "message/rfc822"),
        ((), 60_000, None, "text/rfc822-headers"),
    ],
)
def test_how_much_comes_back(make_suite: Make, mx: Mx, ret: list[str], size: int, most: str | None, kind: str) -> None:
    """The whole message, or its header for RET=HDRS and above control/bouncemaxbytes (0: no limit)."""
    there = mx(dot=["554 5.6.0 no"])
    out = Outbound(make_suite(), {"": there.port}, **({"bouncemaxbytes": most} if most else {}))
    body = b"".join(b"%077d\r\n" % n for n in range(size // 79))
    out.send(BOB, message=b"Subject: hello\r\nX-Last: yes\r\n\r\n" + body, mail=ret)
    report = out.report()
    assert report.failed == {BOB}
    assert report.returned.get_content_type() == kind
    assert b"X-Last: yes" in report.text
    assert (body[-79:].strip() in report.text) == (kind == "message/rfc822")


def test_a_null_sender_is_kept_and_a_bounce_that_bounces_ends(make_suite: Make, mx: Mx) -> None:
    """A refused bounce goes to doublebounceto, on the wire from the null sender too; refused again, it is dropped."""
    there = mx(RCPT=["550 5.1.1 unknown"])
    out = Outbound(make_suite(), {"": there.port}, doublebounceto="pm@x.test")
    out.send(BOB, sender="gone@x.test")
    out.suite.wait_for_log("triple bounce: discarding")
    out.suite.wait_until_idle()
    senders = [line.partition(" SIZE")[0].removeprefix("MAIL FROM:") for line in mail_from(there)]
    assert senders == ["<gone@x.test>", "<>", "<>"]
    assert rcpt_to(there) == [f"RCPT TO:<{address}>" for address in (BOB, "gone@x.test", "pm@x.test")]
    assert not out.suite.mail()


def test_a_double_bounce_reaches_the_postmaster(make_suite: Make, mx: Mx) -> None:
    """What could not be told the sender is told doublebounceto, with the bounce in it."""
    there = mx(RCPT=["550 5.1.1 unknown"])
    out = Outbound(make_suite(), {"": there.port}, doublebounceto=ANN)
    out.send(BOB, sender="gone@x.test")
    report = out.report()
    assert [r["Final-Recipient"] for r in report.recipients] == ["rfc822;gone@x.test"]
    assert report.failed == {"gone@x.test", BOB}  # flufl.bounce looks into the bounce that is in it too
    assert "the bounce bounced" in report.people
    assert "the original bounce" in report.people
    assert f"Final-Recipient: rfc822;{BOB}".encode() in report.text


def test_mail_that_goes_round_in_circles_ends(make_suite: Make) -> None:
    """A domain that we relay to ourselves comes back to its sender after control/maxhops."""
    suite = make_suite()
    suite.control("maxhops", "7\n")
    out = Outbound(suite)
    out.route({"x.test": suite.smtp_port})
    out.all_due()
    suite.signal(1)
    out.send(BOB)
    report = out.report()
    assert report.failed == {BOB}
    assert report.recipients[0]["Status"] == "5.4.6"
    suite.wait_until_idle()


def test_a_relay_that_is_missing_defers(make_suite: Make, tmp_path: Path) -> None:
    """A relay of smtproutes that DNS does not know is our fault: the mail waits."""
    suite = make_suite()
    with DnsAnswerer(tmp_path, {}) as dns:
        suite.control("dnsservers", f"127.0.0.1:{dns.port}\n")
        out = Outbound(suite)
        suite.control("smtproutes", "x.test:relay.test\n")
        suite.signal(1)
        name = out.send(BOB)
        assert out.suite.wait_for(lambda: out.history(name))[0].letter == b"Z"
