"""qm-qread, qm-qstat, qm-queue-show, qm-tcpto, qm-tcpok: what an administrator sees of mail that waits."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.outbound import ANN, Mx, Outbound, several_mx
from tests.harness.rspawn import full_listener
from tests.harness.suite import DOMAIN, Suite

Make = Callable[..., Suite]
BOB, EVE = "bob@x.test", "eve@x.test"
SOME_ID = "1ht3e8rgvvqg000001"
NOBODY = 64999  # a uid that has no business with the queue


@pytest.fixture
def mx(tmp_path: Path) -> Iterator[Mx]:
    yield from several_mx(tmp_path)


@pytest.fixture
def waiting(make_suite: Make, mx: Mx) -> tuple[Outbound, str]:
    """A suite with one message: ann has it, bob's host is busy, eve is unknown and it was told."""
    there = mx(RCPT=["450 4.2.1 mailbox busy", "550 5.1.1 no such user"])
    out = Outbound(make_suite(), {"": there.port}, maxrcptperdelivery="2")
    name = out.send(BOB, EVE, ANN)
    out.suite.wait_for(lambda: len(out.history(name)) == 3, "three outcomes")
    return out, name


def output(suite: Suite, *argv: str, code: int = 0) -> str:
    done = suite.run(*argv)
    assert done.returncode == code, done.stderr
    return done.stdout.decode("ascii")


# qm-qread, qm-qstat


def test_qread_is_as_qmails(waiting: tuple[Outbound, str]) -> None:
    """A line for the message, a line for each recipient with its channel, `done` before those (qmail.md 19)."""
    out, name = waiting
    first, *rest = output(out.suite, "qm-qread").splitlines()
    pattern = rf"\d{{1,2}} [A-Z][a-z]{{2}} 20\d\d \d\d:\d\d:\d\d GMT  #{name}  \d+  <{ANN}>  bouncing"
    assert re.fullmatch(pattern, first)
    assert rest == [f"\tremote\t{BOB}", f"  done\tremote\t{EVE}", f"  done\tlocal\t{ANN}"]


def test_qread_json(waiting: tuple[Outbound, str]) -> None:
    """A JSON object a line says the same, and what each recipient waits for."""
    out, name = waiting
    (line,) = output(out.suite, "qm-qread", "--json").splitlines()
    shown = json.loads(line)
    assert (shown["id"], shown["sender"], shown["queue"], shown["bouncing"]) == (name, ANN, "cur", True)
    bob, eve, ann = shown["recipients"]
    assert (bob["address"], bob["where"], bob["state"], bob["status"]) == (BOB, "remote", "deferred", "4.2.1")
    assert bob["next"] - shown["born"] == 400 and bob["diagnostic"] == "450 4.2.1 mailbox busy"
    assert (eve["state"], eve["next"]) == ("failed", None)
    assert (ann["state"], ann["where"], ann["to"]) == ("delivered", "local", ANN)


def test_odd_addresses_show_harmlessly(make_suite: Make) -> None:
    """Control bytes and bytes that are no UTF-8 never reach the terminal; JSON stays JSON."""
    suite = make_suite()
    suite.control("concurrencyremote", "0\n")
    suite.start()
    envelope = b"Fa\x1b[31m\n@x.test\0Tb\xff\x07\x1b]0;x\x07@x.test\0Tb\xc3\xb6b@x.test\0\0"
    assert suite.queue(b"Subject: x\n\nx\n", envelope) == 0
    (name,) = suite.wait_for(lambda: os.listdir(suite.home / "queue/cur"))
    for argv in (["qm-qread"], ["qm-qread", "--json"], ["qm-queue-show", name]):
        text = output(suite, *argv)
        assert all(character in "\n\t" or " " <= character <= "~" for character in text)
    assert "  <a_[31m_@x.test> \n\tremote\tb___]0;x_@x.test\n" in output(suite, "qm-qread")
    shown = json.loads(output(suite, "qm-qread", "--json"))
    assert shown["sender"] == "a\x1b[31m\n@x.test"
    assert shown["recipients"][1]["address"] == "b\u00f6b@x.test"


def test_qstat_counts(make_suite: Make) -> None:
    """All messages, and those that send has not taken up: as long as it does not run, every new one."""
    suite = make_suite()
    suite.control("concurrencyremote", "0\n")
    out = Outbound(suite)
    for n in range(3):
        out.send(f"u{n}@x.test")
    suite.wait_for(lambda: len(os.listdir(suite.home / "queue/cur")) == 3)
    assert output(suite, "qm-qstat") == "messages in queue: 3\nmessages in queue but not yet preprocessed: 0\n"
    os.kill(suite.pid_of("qm-send"), signal.SIGSTOP)
    try:
        name = out.send("u4@x.test")
        assert output(suite, "qm-qstat") == "messages in queue: 4\nmessages in queue but not yet preprocessed: 1\n"
        assert name in output(suite, "qm-qread")
        assert "qm-send has not taken it up yet" in output(suite, "qm-queue-show", name)
    finally:
        os.kill(suite.pid_of("qm-send"), signal.SIGCONT)


def test_an_empty_queue(suite: Suite) -> None:
    """Nothing is said of nothing, with exit 0."""
    assert output(suite, "qm-qread") == output(suite, "qm-qread", "--json") == ""


def test_mail_that_moves_meanwhile(suite: Suite) -> None:
    """While mail comes, is delivered and goes, the tools see a queue without errors."""
    for n in range(60):
        suite.send(ANN, b"Subject: %d\r\n\r\nx\r\n" % n)
        if not n % 10:
            for argv in (["qm-qread"], ["qm-qstat"]):
                assert suite.run(*argv).stderr == b""
    suite.wait_until_idle()


def test_a_damaged_message_is_said(make_suite: Make) -> None:
    """A file that fails its check is named on descriptor 2, the others are shown, and the exit code is 111."""
    suite = make_suite()
    suite.control("concurrencyremote", "0\n")
    out = Outbound(suite)
    bad, good = out.send(BOB), out.send(EVE)
    suite.wait_for(lambda: len(os.listdir(suite.home / "queue/cur")) == 2)
    os.truncate(suite.home / "queue/cur" / bad, 100)
    done = suite.run("qm-qread")
    assert done.returncode == 111
    assert f"{bad} is damaged".encode() in done.stderr
    assert good.encode() in done.stdout
    assert suite.run("qm-queue-show", bad).returncode == 111


# qm-queue-show


def test_queue_show_tells_everything(waiting: tuple[Outbound, str]) -> None:
    """Envelope, each recipient's standing, the history, the next try, and why it waits."""
    out, name = waiting
    text = output(out.suite, "qm-queue-show", name)
    for wanted in (
        rf"^message {name} in queue/cur, \d+ bytes$",
        rf"^sender: <{ANN}>$",
        r"^came by ESMTP from 127\.0\.0\.1, uid \d+, pid \d+$",
        r"^born: .* ago\)$",
        r"^last try after: .* \(in (6 d 23 h|7 d)\)$",
        rf"^recipient 0: <{BOB}>\n    remote <{BOB}>, by neither in locals nor .*\n    next try: .*mailbox busy",
        rf"^recipient 1: <{EVE}>\n.*\n    failed: .*no such user",
        rf"^recipient 2: <{ANN}>\n    local <{ANN}>, by locals\n    delivered: ",
        r"^history:$",
        r"^  \d+ \w+ 20\d\d [\d:]+, recipient 0 deferred, 4\.2\.1, \[127\.0\.0\.1\]: 450 4\.2\.1 mailbox busy$",
        r"^why it waits:\n  1 of its recipients: deferred; the next try is .* \(in 6 min\)$",
    ):
        assert re.search(wanted, text, re.MULTILINE), (wanted, text)


def test_queue_show_tells_of_a_hold(make_suite: Make) -> None:
    """A hold is named with its control file; a send that does not run is said."""
    suite = make_suite()
    suite.control("concurrencyremote", "0\n")
    out = Outbound(suite)
    name = out.send(BOB, mail=["RET=HDRS", "ENVID=QQ1"], rcpt=["NOTIFY=NEVER"])
    suite.wait_for(lambda: os.listdir(suite.home / "queue/cur"))
    text = output(suite, "qm-queue-show", name)
    assert "  control/concurrencyremote is 0: all remote deliveries are held\n" in text
    assert "asked for: RET=HDRS ENVID=QQ1\n" in text
    assert "    NOTIFY=NEVER\n    no try has ended yet\n" in text
    suite.stop()
    assert output(suite, "qm-queue-show", f"#{name}").endswith("why it waits:\n  qm-send is not running\n")


def test_queue_show_of_what_is_put_aside(make_suite: Make) -> None:
    """A damaged message in queue/bad whose envelope can be read is shown, with where it is."""
    suite = make_suite()
    suite.allowed_alerts.append("is damaged")
    out = Outbound(suite, concurrencyremote="0")
    suite.dot_qmail("ann", "./Later/\n", "-later")
    name = out.send(f"ann-later@{DOMAIN}")
    suite.wait_for(lambda: out.history(name))
    with open(suite.home / "queue/cur" / name, "r+b") as file:
        file.seek(30)
        file.write(b"\0\0")
    suite.signal(signal.SIGALRM)
    suite.wait_for(lambda: os.listdir(suite.home / "queue/bad"))
    text = output(suite, "qm-queue-show", name)
    assert "in queue/bad" in text and "  it is damaged: kept, and never delivered\n" in text


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["../../control/me"], [SOME_ID], ["a", "b"]])
def test_queue_show_of_nothing(suite: Suite, argv: list[str]) -> None:
    """No ID, no message of that ID, or something else: exit 100, with a line that says so."""
    done = suite.run("qm-queue-show", *argv)
    assert (done.returncode, done.stdout) == (100, b"")
    assert re.fullmatch(rb"qm-queue-show: fatal: .*\n", done.stderr)


@pytest.mark.needs_root
@pytest.mark.parametrize("command", ["qm-qread", "qm-qstat", f"qm-queue-show {SOME_ID}", "qm-tcpto", "qm-tcpok"])
def test_strangers_see_nothing(make_suite: Make, open_folder: Path, command: str) -> None:
    """Who is neither root nor of the queue's group gets exit 111 and not a name."""
    suite = make_suite(open_folder).start()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os._exit(suite.run(*command.split()).returncode)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 111


# qm-tcpto, qm-tcpok


@pytest.fixture
def silent(make_suite: Make) -> Iterator[Outbound]:
    """A suite that has found 127.0.0.1 silent."""
    held, port = full_listener()
    out = Outbound(make_suite(), {"": port}, timeoutconnect="1")
    out.send(BOB)
    out.suite.wait_for_log("deferral")
    yield out
    for one in held:
        one.close()


def test_tcpto_and_tcpok(silent: Outbound) -> None:
    """An address that timed out is listed with its age and count, until tcpok."""
    assert re.fullmatch(
        r"127\.0\.0\.1 timed out \d seconds ago; # recent timeouts: 1\n", output(silent.suite, "qm-tcpto")
    )
    assert output(silent.suite, "qm-tcpok") == ""
    assert output(silent.suite, "qm-tcpto") == ""


def test_a_restart_forgets(silent: Outbound) -> None:
    """What qm-rspawn has learned of silent addresses is in its memory alone."""
    silent.suite.stop()
    assert "127.0.0.1" not in "".join(
        path.read_text(errors="replace") for path in (silent.suite.home / "run").rglob("*") if path.is_file()
    )
    silent.suite.control("concurrencyremote", "0\n")
    silent.suite.start()
    assert output(silent.suite, "qm-tcpto") == ""


def test_tcpto_without_rspawn(make_suite: Make) -> None:
    """When nothing runs it is a temporary failure that says what to look at."""
    suite = make_suite().start()
    suite.stop()
    for name in ("qm-tcpto", "qm-tcpok"):
        done = suite.run(name)
        assert done.returncode == 111
        assert done.stderr.endswith(b"run/rspawn: nobody listens; is qm-rspawn running?)\n")


def test_junk_at_the_door(silent: Outbound) -> None:
    """Connections that say nothing, or nonsense, hold up neither deliveries nor other askers."""
    idle = [_knock(silent.suite) for _ in range(20)]
    loud = _knock(silent.suite)
    loud.send(b"what?\0")
    assert loud.recv(100) == b""
    assert "127.0.0.1 timed out" in output(silent.suite, "qm-tcpto")
    for one in (*idle, loud):
        one.close()
    silent.suite.wait_for_log("rspawn: not a question that we know")


def _knock(suite: Suite) -> socket.socket:
    """A connection to rspawn's door; by a path that is short enough for a socket."""
    folder = os.open(suite.home / "run", os.O_RDONLY)
    try:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(10)
        channel.connect(f"/proc/self/fd/{folder}/rspawn")
        return channel
    finally:
        os.close(folder)


@pytest.mark.needs_root
def test_the_door_is_roots(suite: Suite) -> None:
    """A fallen role cannot ask: the socket is root's alone, and workers have not inherited it."""
    status = os.stat(suite.home / "run/rspawn")
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
