"""Files that are broken, missing or not ours to write, under the whole suite: named in the log, and nothing is lost."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.suite import DOMAIN, Suite

ANN = f"ann@{DOMAIN}"
MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"


@contextmanager
def _moved_away(path: Path) -> Iterator[None]:
    """While *path* has another name."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def _mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def _rcpt(suite: Suite, address: str) -> bytes:
    """What is said to a recipient."""
    with Dialogue(suite.smtp_port) as client:
        client.reply()
        client.ask(b"MAIL FROM:<bob@elsewhere.example>")
        return client.ask(f"RCPT TO:<{address}>".encode())


def _login(suite: Suite) -> bytes:
    with Dialogue(suite.pop3_port) as client:
        client.line()
        client.say(b"USER ann\r\n")
        client.line()
        return client.ask(b"PASS secret")


def _try_now(suite: Suite, limit_s: float = 15.0) -> None:
    """What waits is tried until the queue is empty."""
    folders = [suite.home / "queue" / name for name in ("new", "cur")]
    suite.wait_for(lambda: suite.signal(signal.SIGALRM) or not any(map(os.listdir, folders)), "an empty queue", limit_s)


# control files


def test_without_a_name_it_does_not_start(make_suite: Callable[[], Suite]) -> None:
    """A missing control/me is said with file and line; when it is there the same command starts the suite."""
    suite = make_suite()
    suite.allowed_alerts += ["qm-supervise: alert: start ended", "qm-start: alert"]
    suite.control("me", None)
    with pytest.raises(AssertionError, match="does not start"):
        suite.start()
    suite.wait_for_log(r"fatal: .*control/me:1: missing or empty")
    suite.stop()
    suite.control("me", f"{DOMAIN}\n")
    suite.start().send(ANN, MESSAGE)
    suite.wait_for_mail()


BROKEN = {  # what is broken in which line
    "me": ("", 1),
    "authcachetime": ("1 minute\n", 1),
    "concurrencylocal": ("many\n", 1),
    "concurrencyqueue": ("\n", 1),
    "databytes": ("5 MB\n", 1),
    "locals": (f"# ours\n{DOMAIN}\n\0\n", 3),
    "maxlogins": ("-3\n", 1),
    "rcpthosts": (f"{DOMAIN}\na\0b\n", 2),
    "smtproutes": ("# to the relay\n\nrelay.example\n", 3),
    "virtualdomains": ("a.example:ann\n\n# x\nno colon here\n", 4),
}


@pytest.mark.alerts("keeping the last good value")
def test_broken_control_files_keep_their_last_value(suite: Suite) -> None:
    """Each is named with its line by who reads it, and mail comes and goes as before."""
    for name, (text, _) in BROKEN.items():
        suite.control(name, text)
    suite.signal(signal.SIGHUP)
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail()
    assert _login(suite).startswith(b"+OK")
    for name, (_, line) in BROKEN.items():
        suite.wait_for_log(rf"control/{name}:{line}: .*keeping the last good value")


@pytest.mark.parametrize(
    "name", ["concurrencyqueue", "smtproutes", pytest.param("roles", marks=pytest.mark.needs_root)]
)
def test_broken_control_files_at_the_start(make_suite: Callable[[], Suite], name: str) -> None:
    """Who needs it does not start, and says which file and line."""
    suite = make_suite()
    suite.allowed_alerts += ["qm-supervise: alert: ", "qm-start: alert"]
    text, line = {**BROKEN, "roles": ("qmaild:64011:64011\nqmails:no\n", 2)}[name]
    suite.control(name, text)
    with pytest.raises(AssertionError, match="does not start"):
        suite.start()
    suite.wait_for_log(rf"fatal: .*control/{name}:{line}: ")


def test_a_control_file_that_everybody_may_write(suite: Suite) -> None:
    """It does not count: its last good value does, and the log says what to do."""
    suite.control("rcpthosts", "evil.example\n")
    with _mode(suite.home / "control/rcpthosts", 0o666):
        assert _rcpt(suite, "x@evil.example").startswith(b"553 ")
        assert _rcpt(suite, ANN).startswith(b"250 ")
        suite.wait_for_log(r"control/rcpthosts: writable by everybody; chmod o-w")


# cdb files


def _spoil(path: Path) -> Callable[[], None]:
    """Break a file in its middle; gives the function that mends it."""
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    return lambda: path.write_bytes(good) and None


@pytest.mark.alerts("users/cdb")
def test_a_corrupt_users_cdb(suite: Suite) -> None:
    """Nobody is refused, bounced or given to the alias user: recipients and deliveries wait until it is mended."""
    mend = _spoil(suite.home / "users/cdb")
    assert _rcpt(suite, ANN).startswith(b"451 4.3.0 ")
    assert _rcpt(suite, f"nobody@{DOMAIN}").startswith(b"451 4.3.0 ")
    assert suite.queue(MESSAGE.replace(b"\r", b""), f"Fbob@elsewhere.example\0T{ANN}\0\0".encode()) == 0
    suite.wait_for_log(r"delivery \d+: deferral: ")
    suite.wait_for_log(r"users/cdb")
    mend()
    _try_now(suite)
    assert len(suite.mail()) == 1
    assert _rcpt(suite, ANN).startswith(b"250 ")
    assert _rcpt(suite, f"nobody@{DOMAIN}").startswith(b"550 ")


@pytest.mark.alerts("passwd.cdb")
def test_a_corrupt_passwd_cdb(suite: Suite) -> None:
    """A login is told to come again, not that the password is wrong; after mending it works."""
    suite.control("authfaildelay", "0\n")
    mend = _spoil(suite.home / "users/passwd.cdb")
    assert _login(suite).startswith(b"-ERR [SYS/TEMP] ")
    suite.wait_for_log("users/passwd.cdb")
    mend()
    assert _login(suite).startswith(b"+OK")


def test_corrupt_tcp_rules(make_suite: Callable[[], Suite]) -> None:
    """Broken rules let nobody in, and say so; mended ones count at once."""
    suite = make_suite()
    rules = suite.home / "control/tcp.smtp.cdb"
    assert suite.run("tcprules", str(rules), f"{rules}.tmp", input=b"127.:allow\n:deny\n").returncode == 0
    command = next(line for line in (suite.home / "services").read_text().splitlines() if line.startswith("smtp:"))
    suite.service("smtp", command.partition(": ")[2].replace("tcpserver", "tcpserver -x control/tcp.smtp.cdb"))
    suite.start()
    assert _rcpt(suite, ANN).startswith(b"250 ")
    mend = _spoil(rules)
    with Dialogue(suite.smtp_port) as client:
        assert client.rest() == b""
    suite.wait_for_log(r"tcpserver: warning: dropping connection: .*tcp\.smtp\.cdb")
    mend()
    assert _rcpt(suite, ANN).startswith(b"250 ")


# the queue


def _damaged(good: bytes) -> Iterator[bytes]:
    """What a disk, or a hand, may make of a queue file."""
    yield b""
    yield good[:-1]
    yield good[: len(good) // 2]
    yield bytes(len(good))
    yield b"#" * len(good)
    yield good + good[-64:]
    yield good[:200] + bytes([good[200] ^ 1]) + good[201:]
    yield good.replace(b"Tann-", b"Tamy-")  # the envelope
    yield good.replace(b"body", b"BODY")  # the message


@pytest.mark.alerts("is damaged")
def test_corrupt_queue_files(suite: Suite) -> None:
    """Whatever is wrong with a queue file, it goes to queue/bad with an alert, undelivered, and holds up nobody."""
    suite.dot_qmail("ann", "./Later/\n", "-later")
    suite.send(f"ann-later@{DOMAIN}", MESSAGE)
    (path,) = suite.wait_for(lambda: list(suite.home.glob("queue/cur/*")))
    good = path.read_bytes()
    suite.stop()
    spoilt = list(_damaged(good))
    for number, data in enumerate(spoilt):
        target = suite.home / "queue" / ("new", "cur")[number % 2] / f"1htp000000000{number:05}"
        target.write_bytes(data)
        os.chown(target, path.stat().st_uid, path.stat().st_gid)
    suite.start()
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail(1)
    bad = suite.home / "queue/bad"
    suite.wait_for(lambda: len(list(bad.iterdir())) == len(spoilt), "all of them in queue/bad")
    assert [file.read_bytes() for file in sorted(bad.iterdir())] == spoilt
    suite.wait_for(lambda: os.listdir(suite.home / "queue/cur") == [path.name], "the end of the good message")
    assert not os.listdir(suite.home / "queue/new")


@pytest.mark.alerts(r"cannot queue \w+: ")
def test_an_unwritable_queue(suite: Suite) -> None:
    """451 to the client, an alert with the step, nothing left; when it is writable again mail goes its way."""
    begin = f"EHLO x\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
    for folder, step in (("tmp", "create"), ("new", "publish")):
        with _mode(suite.home / "queue" / folder, 0o500), Dialogue(suite.smtp_port) as client:
            client.say(begin)
            assert client.codes(5) == [220, 250, 250, 250, 354]
            assert client.ask(MESSAGE + b".").startswith(b"451 4.3.0 ")
            suite.wait_for_log(rf"qm-queued: alert: cannot queue \w+: {step}: Permission denied")
            suite.wait_until_idle()
    suite.send(ANN, MESSAGE)
    suite.wait_for_mail()
    suite.wait_until_idle()
    assert len(suite.mail()) == 1


# homes


def test_bad_modes_defer(suite: Suite) -> None:
    """A .qmail file or home that others may write, and a home that is being edited, hold mail until that is mended."""
    home = suite.home / "home/ann"
    dot_qmail = suite.dot_qmail("ann", "./Maildir/\n")
    extension = suite.dot_qmail("ann", "./Maildir/\n", "-x")
    for count, (path, mode, status) in enumerate(
        [(dot_qmail, 0o602, "4.7.0"), (dot_qmail, 0o666, "4.7.0"), (home, 0o702, "4.7.0"), (home, 0o1700, "4.2.1")], 1
    ):
        with _mode(path, mode):
            suite.send(ANN, MESSAGE)
            suite.wait_for(lambda n=count: suite.log().count(": deferral: ") >= n, "a deferral")
            suite.wait_for_log(rf"delivery \d+: deferral: .*{status}")
        _try_now(suite)
        assert len(suite.mail()) == count
    with _mode(extension, 0o602):
        assert _rcpt(suite, f"ann-x@{DOMAIN}").startswith(b"451 ")
    assert _rcpt(suite, f"ann-x@{DOMAIN}").startswith(b"250 ")


@contextmanager
def _a_file_instead(path: Path) -> Iterator[None]:
    with _moved_away(path):
        path.write_bytes(b"")
        yield
        path.unlink()


def test_a_maildir_out_of_order(suite: Suite) -> None:
    """Mail waits, POP3 says what is wrong, and when the Maildir is mended each message is there once."""
    maildir = suite.maildir()
    no_mailbox, still_read = b"-ERR [SYS/PERM] ", b"+OK"
    troubles = [
        (_moved_away(maildir), no_mailbox),
        (_a_file_instead(maildir), no_mailbox),
        (_moved_away(maildir / "new"), no_mailbox),
        (_mode(maildir / "new", 0o500), still_read),
        (_mode(maildir / "tmp", 0o500), still_read),
    ]
    for count, (trouble, answer) in enumerate(troubles, 1):
        with trouble:
            suite.send(ANN, MESSAGE)
            suite.wait_for(lambda n=count: suite.log().count("deferral: Unable_to_deliver_to_the_Maildir") == n)
            assert _login(suite).startswith(answer)
        _try_now(suite)
        assert len(suite.mail()) == count
    assert suite.log().count("(#4.2.1)") == len(troubles)
    assert not os.listdir(maildir / "tmp")


def test_a_missing_home(suite: Suite) -> None:
    """A home that is gone, as when its disk is not mounted, holds the mail and is said; then it is delivered."""
    suite.control("authfaildelay", "0\n")
    with _moved_away(suite.home / "home/ann"):
        suite.send(ANN, MESSAGE)
        suite.wait_for_log(r"delivery \d+: deferral: Unable_to_enter_the_home_directory.*4\.3\.0")
        assert _login(suite).startswith(b"-ERR [SYS/")
    _try_now(suite)
    assert len(suite.mail()) == 1


# loops


def test_looping_forwards_end_with_one_bounce(suite: Suite) -> None:
    """a forwards to b and b to a: the sender gets one report, which names who saw it again; then all is over."""
    for name in ("bea", "carol"):
        suite.add_user(name, "secret")
    suite.dot_qmail("ann", "&bea@test.example\n")
    suite.dot_qmail("bea", "&ann@test.example\n")
    suite.send(ANN, MESSAGE, sender=f"carol@{DOMAIN}")
    (report,) = suite.wait_for_mail(1, "carol")
    suite.wait_until_idle()
    assert len(suite.mail("carol")) == 1 and suite.mail() == suite.mail("bea") == []
    assert b"This message is looping" in report and b"Final-Recipient: rfc822;ann@test.example\n" in report
    assert not os.listdir(suite.home / "queue/state")


def test_a_forward_to_itself_ends(suite: Suite) -> None:
    """One mailbox that forwards to itself is the shortest loop, with a copy in its Maildir a copy is there."""
    suite.add_user("carol", "secret")
    suite.dot_qmail("ann", "./Maildir/\n&ann@test.example\n")
    suite.send(ANN, MESSAGE, sender=f"carol@{DOMAIN}")
    suite.wait_for_mail(1, "carol")
    suite.wait_until_idle()
    assert len(suite.mail("carol")) == len(suite.mail()) == 1
