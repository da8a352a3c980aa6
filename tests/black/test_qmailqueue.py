"""QMAILQUEUE: a program in the place of the queue, for all that hand messages over (qmail.md 5.1)."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.suite import BIN, DOMAIN, HOST, Suite
from tests.harness.waiting import wait_for

ANN = f"ann@{DOMAIN}"
READ_ALL = "cat >/dev/null; cat <&1 >/dev/null; "


def _wrapper(suite: Suite, script: str) -> str:
    """A program in the home, by the name that QMAILQUEUE has for it; it can write in out/, where its pid is."""
    (suite.home / "out").mkdir(exist_ok=True)
    (suite.home / "out").chmod(0o777)
    path = suite.home / "wrapper"
    path.write_text(f"#!/bin/sh\nPATH={BIN}:$PATH; QMHOME=.\necho $$ >out/pid\n{script}\n")
    path.chmod(0o755)
    return "wrapper"


def _served(suite: Suite, script: str, service: str = "qm-smtpd") -> Suite:
    """A suite whose service `filtered` has *script* for a queue."""
    suite.stop()
    words = f"QMAILQUEUE={_wrapper(suite, script)}"
    suite.service("filtered", f"{words} tcpserver -H -R -l {DOMAIN} {HOST} 0 {service}")
    suite.start()
    return suite


def _sent(suite: Suite, text: bytes = b"Subject: x\r\n\r\nHi\r\n") -> bytes:
    """The answer to a message."""
    with Dialogue(suite.port("filtered")) as peer:
        peer.reply()
        for command in (b"EHLO x", b"MAIL FROM:<bob@x.test>", b"RCPT TO:<" + ANN.encode() + b">", b"DATA"):
            peer.ask(command)
        peer.say(text + b".\r\n")
        return peer.reply()


def _is_over(pid: int) -> bool:
    """Whether it is gone, or nobody has asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _queue_is_empty(suite: Suite) -> bool:
    return not any(os.listdir(suite.home / "queue" / name) for name in ("new", "cur", "tmp"))


ENDINGS: Final = [
    ("exit 0", rb"250 2\.0\.0 ok \d+ id qp\d+"),
    ("exit 11", rb"554 5\.1\.3 an address is too long"),
    ("exit 31", rb"554 5\.3\.0 the queue refuses this message"),
    ("exit 40", rb"554 5\.3\.0 .*"),
    ("exit 51", rb"451 4\.3\.0 the queue is out of memory"),
    ("exit 53", rb"451 4\.3\.0 .*"),
    ("exit 71", rb"451 4\.3\.0 .*"),
    ("exit 72", rb"451 4\.4\.1 .*"),
    ("exit 74", rb"451 4\.4\.2 .*"),
    ("exit 115", rb"554 5\.1\.3 .*"),
    ("exit 120", rb"451 4\.3\.0 .*"),
    ("exit 1", rb"451 4\.3\.0 .*"),
    ("exit 88", rb"451 4\.3\.0 .*"),
    ("kill -9 $$", rb"451 4\.3\.0 .*"),
    ("printf 'Dno spam here' >&6; exit 82", rb"554 5\.3\.0 no spam here"),
    ("printf 'Zgreylisted' >&6; exit 82", rb"451 4\.3\.0 greylisted"),
    ("printf 'D5.7.1 not you' >&6; exit 82", rb"554 5\.7\.1 not you"),
    ("printf 'D4.7.1 a lie' >&6; exit 82", rb"554 5\.3\.0 4\.7\.1 a lie"),
    (r"printf 'Dtwo\r\n250 lines\033[1m\000' >&6; exit 82", rb"554 5\.3\.0 two\?\?250 lines\?\[1m\?"),
    ("head -c 300 /dev/zero | tr '\\0' D >&6; exit 82", rb"554 5\.3\.0 D{254}"),
    ("cat /dev/zero | tr '\\0' Z >&6 & exit 82", rb"451 4\.3\.0 Z*.*"),
    ("printf D >&6; exit 82", rb"451 4\.3\.0 .*"),
    ("printf 'Kall right' >&6; exit 82", rb"451 4\.3\.0 .*"),
    ("printf 'Dsaid, and not meant' >&6; exit 0", rb"250 2\.0\.0 ok .*"),
]


def test_exit_codes(suite: Suite) -> None:
    """Each code has its class and status; the text of code 82 is the program's own, without control bytes."""
    _served(suite, "exit 0")
    for ending, answer in ENDINGS:
        _wrapper(suite, READ_ALL + ending)
        said = _sent(suite)
        assert re.fullmatch(answer, said), (ending, said)
    assert _queue_is_empty(suite)


def test_what_it_gets(suite: Suite) -> None:
    """The message with our Received field, the envelope as qm-queue reads it, the environment, and no more."""
    script = 'ls /proc/$$/fd >out/fds; echo "$0 $# $TCPREMOTEIP" >out/words; cat >out/message; cat <&1 >out/envelope'
    _served(suite, script)
    assert _sent(suite).startswith(b"250")
    out = suite.home / "out"
    assert (out / "envelope").read_bytes() == b"Fbob@x.test\0T%b\0\0" % ANN.encode()
    received = rb"Received: from x \(.*\)\n  by \S+ with ESMTP\n  for <.*>; .* -0000\nSubject: x\n\nHi\n"
    assert re.fullmatch(received, (out / "message").read_bytes())
    assert (out / "words").read_text().split() == ["wrapper", "0", HOST]
    of_shell = {"10", "11"}
    assert set((out / "fds").read_text().split()) - of_shell == {"0", "1", "2", "6"}


def test_a_filter(suite: Suite) -> None:
    """A program that changes the message and gives it to qm-queue is how filters are made."""
    _served(suite, "sed 's/^Subject: /&[seen] /' | qm-queue")
    assert _sent(suite).startswith(b"250")
    (mail,) = suite.wait_for_mail()
    assert b"\nSubject: [seen] x\n" in mail
    assert mail.count(b"\nReceived: ") == 2


def test_it_does_not_listen(suite: Suite) -> None:
    """One that ends before it has read all is believed when it says no, and not when it says yes."""
    _served(suite, "exit 0")
    for script, answer in (
        ("exit 31", b"554"),
        ("exit 53", b"451"),
        ("exit 0", b"451"),
        ("cat >/dev/null; exit 31", b"554"),
    ):
        _wrapper(suite, script)
        said = _sent(suite, b"x" * 998 + b"\r\n" + (b"y" * 998 + b"\r\n") * 500)
        assert said[:3] == answer, (script, said)


def test_no_such_program(suite: Suite) -> None:
    """A name that is no program is a temporary failure."""
    _served(suite, "exit 0")
    (suite.home / "wrapper").unlink()
    assert _sent(suite).startswith(b"451 4.3.0 the queue's program cannot be run")


def test_a_client_that_goes(suite: Suite) -> None:
    """When the client goes in the middle the program gets no whole envelope, and does not outlive the session."""
    _served(suite, "cat >out/message; cat <&1 >out/envelope; exec sleep 1000")
    with Dialogue(suite.port("filtered")) as peer:
        peer.reply()
        for command in (b"EHLO x", b"MAIL FROM:<bob@x.test>", b"RCPT TO:<" + ANN.encode() + b">", b"DATA"):
            peer.ask(command)
        peer.say(b"x" * 998 + b"\r\n")
        wait_for(lambda: (suite.home / "out/pid").exists() and (suite.home / "out/pid").read_text(), "its pid")
    pid = int((suite.home / "out/pid").read_text())
    wait_for(lambda: _is_over(pid), "it is killed")
    assert not (suite.home / "out/envelope").exists() or (suite.home / "out/envelope").read_bytes() == b""


@pytest.mark.parametrize(
    ("program", "words"), [("qm-inject", ["-a", ANN]), ("sendmail", ["-i", ANN]), ("forward", [ANN])]
)
def test_programs_of_users(suite: Suite, program: str, words: Sequence[str]) -> None:
    """What users run obeys it, too: the message goes there, and what it says comes back."""
    wrapper = _wrapper(suite, "cat >out/message; cat <&1 >out/envelope")
    env = {"QMAILQUEUE": wrapper, "SENDER": "me@x.test", "NEWSENDER": "me@x.test", "DTLINE": "Delivered-To: me\n"}
    text = b"From: me@x.test\nTo: x@y.test\n\nHi\n"
    assert suite.run(program, *words, input=text, env=env).returncode == 0
    assert ANN.encode() in (suite.home / "out/envelope").read_bytes()
    assert (suite.home / "out/message").read_bytes().endswith(b"\n\nHi\n")
    for letter, code in (("Z", 111), ("D", 100)):
        _wrapper(suite, f"{READ_ALL} printf '{letter}because I say so' >&6; exit 82")
        done = suite.run(program, *words, input=text, env=env)
        assert (done.returncode, b"because I say so" in done.stderr) == (code, True), done
    assert _queue_is_empty(suite)


def test_a_mini_qm(suite: Suite) -> None:
    """QMAILQUEUE=qm-qmqpc makes another machine's queue ours, for a service and for users."""
    suite.stop()
    suite.service("qmqp", f"tcpserver -H -R -l {DOMAIN} {HOST} 0 qm-qmqpd")
    suite.service(
        "filtered", f"QMAILQUEUE={_wrapper(suite, 'exec qm-qmqpc')} tcpserver -H -R -l {DOMAIN} {HOST} 0 qm-smtpd"
    )
    suite.start()
    suite.control("qmqpservers", f"{HOST}:{suite.port('qmqp')}\n")
    assert _sent(suite).startswith(b"250")
    done = suite.run("qm-inject", ANN, input=b"Subject: y\n\n", env={"QMAILQUEUE": str(BIN / "qm-qmqpc")})
    assert done.returncode == 0, done.stderr
    assert all(b"with QMQP" in mail for mail in suite.wait_for_mail(2))


@pytest.mark.parametrize("service", ["qm-qmqpd", "qm-qmtpd"])
def test_the_other_protocols(suite: Suite, service: str) -> None:
    """QMTP and QMQP servers obey it."""
    _served(suite, READ_ALL + "printf 'Dnot by this way' >&6; exit 82", service)
    address = ANN.encode()
    net = lambda text: b"%d:%b," % (len(text), text)  # noqa: E731
    qmtp = net(b"\nHi\n") + net(b"a@b") + net(net(address))
    data = qmtp if service == "qm-qmtpd" else net(net(b"Hi\n") + net(b"a@b") + net(address))
    with Dialogue(suite.port("filtered")) as peer:
        peer.say(data)
        peer.finish()
        assert peer.rest() == net(b"Dnot by this way (#5.3.0)")


def test_reports_and_forwards(suite: Suite) -> None:
    """qm-send's reports, and what .qmail files forward, go to the QMAILQUEUE of its environment."""
    suite.stop()
    suite.env["QMAILQUEUE"] = _wrapper(suite, "cat >/dev/null; cat <&1 >out/$$.envelope")
    suite.dot_qmail("ann", "&far@away.test\n", "-out")
    suite.start()
    del suite.env["QMAILQUEUE"]

    def got() -> list[bytes]:
        return [path.read_bytes() for path in suite.home.glob("out/*.envelope")]

    assert suite.queue(b"Subject: x\n\n", b"Fme@x.test\0Tann-out@%b\0\0" % DOMAIN.encode()) == 0
    wait_for(lambda: b"Fme@x.test\0Tfar@away.test\0\0" in got(), "the forward")
    assert suite.queue(b"Subject: y\n\n", b"Fme@x.test\0Tno.such.user@%b\0\0" % DOMAIN.encode()) == 0
    wait_for(lambda: b"F\0Tme@x.test\0\0" in got(), "the report")


def test_one_that_hangs_is_killed(suite: Suite) -> None:
    """Who keeps us waiting is killed with all that he has started, and the message is for later."""
    from qm.unix.queueclient import NO_TRACE
    from qm.unix.queueprogram import QueueProgram
    from qm.wire.envelope import Envelope, Recipient
    from qm.wire.queuecode import TIMEOUT, Deferred

    program = _wrapper(suite, READ_ALL + "sleep 1000 & echo $! >out/child; sleep 1000")
    queue = QueueProgram(program.encode(), os.fsencode(suite.home), dict(os.environb), 0.5)
    message = queue.begin(NO_TRACE)
    message.write(b"x" * 200_000)
    with pytest.raises(Deferred) as caught:
        message.commit(Envelope(b"", (Recipient(b"a@b"),)))
    assert caught.value.code == TIMEOUT
    for name in ("pid", "child"):
        assert _is_over(int((suite.home / "out" / name).read_text()))
