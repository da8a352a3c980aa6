"""Disks that are full, under the whole suite: what was accepted is kept, what cannot be is said, then all goes on."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue
from tests.harness.suite import DOMAIN, Suite

ANN, LATER = f"ann@{DOMAIN}", f"ann-later@{DOMAIN}"


def _message(number: int, size: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + (b"x" * 98 + b"\r\n") * (size // 100)


def _numbers(texts: list[bytes]) -> list[int]:
    return sorted(int(re.search(rb"^Subject: (\d+)$", text, re.MULTILINE)[1]) for text in texts)  # type: ignore[index]


class Disks:
    """Small file systems in the place of directories."""

    def __init__(self) -> None:
        self._mounted = ExitStack()

    def mount(self, folder: Path, size: str) -> None:
        """With the owner and mode of *folder*."""
        status = folder.stat()
        options = f"size={size},mode={status.st_mode & 0o7777:o},uid={status.st_uid},gid={status.st_gid}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
        if done.returncode:
            pytest.skip("needs the right to mount")
        self._mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)

    def grow(self, folder: Path, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    def close(self) -> None:
        self._mounted.close()


@pytest.fixture
def disks() -> Iterator[Disks]:
    """Requested before the suites, so that they have stopped when it ends."""
    made = Disks()
    yield made
    made.close()


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """While there is no byte left on the disk of *folder*."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (65536, 512, 1):
                with pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(b"\0" * size)
        yield
    finally:
        filler.unlink()


def _send(suite: Suite, recipients: list[str], message: bytes) -> int:
    """The code that the message gets."""
    with suite.smtp() as client:
        client.ehlo()
        client.mail("bob@elsewhere.example")
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        return client.data(message)[0]


def _deliver_everything(suite: Suite) -> None:
    folders = [suite.home / "queue" / name for name in ("new", "cur")]
    suite.wait_for(lambda: suite.signal(signal.SIGALRM) or not any(map(os.listdir, folders)), "an empty queue", 30)


def _later(suite: Suite) -> Path:
    """Make the Maildir of LATER, which was missing."""
    folder = suite.home / "home/ann/Later"
    assert suite.run("maildirmake", str(folder)).returncode == 0
    for path in [folder, *folder.iterdir()]:
        os.chown(path, suite.maildir().stat().st_uid, suite.maildir().stat().st_gid)
    return folder


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount")
@pytest.mark.alerts(r"cannot queue \w+: .*No space left", r"cannot write queue/state/.*No space left")
@pytest.mark.alerts("a supervisor was killed")
def test_the_queue_fills_up(disks: Disks, make_suite: Callable[[], Suite]) -> None:
    """Messages are taken until the disk is full and then put off with 451; each that was taken is delivered, once."""
    suite = make_suite()
    disks.mount(suite.home / "queue", "500k")
    suite.start()
    suite.dot_qmail("ann", "./Later/\n", "-later")
    codes = [_send(suite, [LATER], _message(number, 30_000)) for number in range(20)]
    taken = [number for number, code in enumerate(codes) if code == 250]
    assert set(codes) == {250, 451} and len(taken) > 8
    suite.wait_for_log(r"qm-queued: alert: cannot queue \w+: write: No space left on device")
    with _filled(suite.home / "queue"):
        assert _send(suite, [ANN], _message(99, 100)) == 451
        client = suite.pop3()
        assert client.stat() == (0, 0)
        client.quit()
        suite.kill()
        suite.start()
        assert _send(suite, [ANN], _message(99, 100)) == 451
    folder = _later(suite)
    _deliver_everything(suite)
    assert _numbers([path.read_bytes() for path in folder.glob("new/*")]) == taken
    assert _send(suite, [ANN], _message(100, 100)) == 250
    assert _numbers(suite.wait_for_mail()) == [100]


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount")
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.alerts("cannot write queue/state/.*No space left", "a supervisor was killed")
def test_no_room_to_remember(disks: Disks, make_suite: Callable[[], Suite], crash: bool) -> None:
    """What send cannot write down it keeps and says, and nobody gets mail twice for it; not even after a crash."""
    suite = make_suite()
    disks.mount(suite.home / "queue", "500k")
    suite.control("concurrencylocal", "0\n")
    suite.start()
    suite.dot_qmail("ann", "./Later/\n", "-later")
    assert _send(suite, [ANN, LATER], _message(1, 100)) == 250
    with _filled(suite.home / "queue"):
        suite.control("concurrencylocal", "10\n")
        suite.signal(signal.SIGHUP)
        suite.wait_for_mail()
        suite.wait_for_log("alert: cannot write queue/state/.*No space left")
        if crash:
            suite.kill()
            suite.start()
            suite.wait_for(lambda: suite.log().count(f"to local {ANN}") == 2, "a second try")
    folder = _later(suite)
    _deliver_everything(suite)
    assert _numbers(suite.mail()) == _numbers([path.read_bytes() for path in folder.glob("new/*")]) == [1]
    assert not os.listdir(suite.home / "queue/state")


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount")
@pytest.mark.alerts(r"cannot copy \w+: No space left")
def test_no_room_for_a_copy(disks: Disks, make_suite: Callable[[], Suite]) -> None:
    """A large message, of which its deliverers need a copy, waits for room; small ones do not."""
    suite = make_suite()
    disks.mount(suite.home / "queue", "1m")
    suite.start()
    assert _send(suite, [ANN], _message(1, 600_000)) == 250
    suite.wait_for_log(r"alert: cannot copy \w+: No space left on device")
    assert _send(suite, [ANN], _message(2, 100)) == 250
    assert _numbers(suite.wait_for_mail()) == [2]
    disks.grow(suite.home / "queue", "2m")
    _deliver_everything(suite)
    assert _numbers(suite.mail()) == [1, 2]


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount")
def test_a_mailbox_fills_up(disks: Disks, make_suite: Callable[[], Suite]) -> None:
    """Mail for it waits with 4.3.1, no half of it stays, and its owner can log in, read and make room."""
    suite = make_suite()
    disks.mount(suite.maildir(), "100k")
    for name in ("tmp", "new", "cur"):
        (suite.maildir() / name).mkdir(0o700)
        os.chown(suite.maildir() / name, suite.maildir().stat().st_uid, suite.maildir().stat().st_gid)
    suite.start()
    for number in range(6):
        assert _send(suite, [ANN], _message(number, 30_000)) == 250
    suite.wait_for(lambda: suite.log().count(": deferral: ") + len(suite.mail()) == 6, "an outcome for each")
    suite.wait_for_log(r"deferral: Unable_to_deliver_to_the_Maildir:_No_space_left_on_device\._\(#4\.3\.1\)/")
    first = _numbers(suite.mail())
    assert 0 < len(first) < 6 and not os.listdir(suite.maildir() / "tmp")
    read: list[bytes] = []
    with _filled(suite.maildir()):
        client = suite.pop3()
        for number in range(1, client.stat()[0] + 1):
            read.append(b"\n".join(client.retr(number)[1]))
            client.dele(number)
        assert client.quit().startswith(b"+OK")
        assert not suite.mail()
    suite.signal(signal.SIGALRM)
    suite.wait_for_mail(min(3, 6 - len(first)))
    client = suite.pop3()
    for number in range(1, client.stat()[0] + 1):
        read.append(b"\n".join(client.retr(number)[1]))
        client.dele(number)
    client.quit()
    _deliver_everything(suite)
    assert _numbers(read + suite.mail()) == list(range(6))


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount")
@pytest.mark.alerts(r"\d+ lines lost: No space left on device")
def test_the_log_fills_up(disks: Disks, make_suite: Callable[[], Suite]) -> None:
    """Mail goes its way without a log; when there is room again the log goes on, and says what is missing."""
    suite = make_suite()
    disks.mount(suite.home / "log", "100k")
    suite.start()
    with _filled(suite.home / "log"):
        for number in range(30):
            assert _send(suite, [ANN], _message(number, 100)) == 250
        suite.wait_for_mail(30)
    assert _send(suite, [ANN], _message(30, 100)) == 250
    suite.wait_for_log(r"qm-log: alert: \d+ lines lost: No space left on device")
    suite.wait_until_idle()
    assert _numbers(suite.mail()) == list(range(31))


@pytest.mark.needs("prlimit")
@pytest.mark.alerts(r"cannot queue \w+: write: File too large")
def test_a_file_size_limit(make_suite: Callable[[], Suite]) -> None:
    """Without root, a limit plays the full disk: 451 for what is too large, nothing is left of it, all else goes on."""
    suite = make_suite()
    services = suite.home / "services"
    services.write_text(services.read_text().replace("qm-start", "prlimit --fsize=200000 qm-start"))
    suite.start()
    suite.wait_for_log("^status: local 0/10")  # a stranger's program does not say when it serves
    with Dialogue(suite.smtp_port) as client:
        client.reply()
        for number, size, code in ((1, 300_000, b"451 4.3.0 "), (2, 100, b"250 "), (3, 150_000, b"250 ")):
            client.say(f"MAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode())
            assert client.codes(3) == [250, 250, 354]
            assert client.ask(_message(number, size) + b".").startswith(code)
    suite.wait_for_mail(2)
    suite.wait_until_idle()
    assert _numbers(suite.mail()) == [2, 3]
