"""How much the whole suite bears: many sessions, a limit that is reached, a huge mailbox, a huge message."""

import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.harness.dialogue import Dialogue
from tests.harness.suite import DOMAIN, Suite

ANN = f"ann@{DOMAIN}"
BEGIN = f"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
BEGUN = [220, 250, 250, 250, 354]  # what is said to BEGIN
SESSIONS = 100  # what the services file allows
MIB = 1 << 20


def _subjects(suite: Suite) -> list[int]:
    return sorted(int(re.search(rb"^Subject: (\d+)$", text, re.MULTILINE)[1]) for text in suite.mail())  # type: ignore[index]


def test_a_hundred_sessions_at_once(make_suite: Callable[[], Suite]) -> None:
    """A hundred clients are in the middle of a message each; one more waits, and is greeted when one has left.

    Then all messages arrive, and the next client is served as ever.
    """
    suite = make_suite()
    services = suite.home / "services"  # all come at once; the kernel would have some try again after a second
    services.write_text(services.read_text().replace("tcpserver ", f"tcpserver -b {SESSIONS} "))
    suite.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Dialogue(suite.smtp_port)) for _ in range(SESSIONS)]
        for client in clients:
            client.say(BEGIN)
        for number, client in enumerate(clients):
            assert client.codes(5) == BEGUN
            client.say(b"Subject: %d\r\n\r\nbody\r\n" % number)
        one_more = stack.enter_context(Dialogue(suite.smtp_port))
        suite.wait_for_log(r"all 100 connections \(-c\) are in use")
        one_more.socket.setblocking(False)
        try:
            assert not one_more.socket.recv(1)
        except BlockingIOError:
            pass  # it waits
        one_more.socket.settimeout(15)
        assert clients[0].ask(b".")[:3] == b"250" and clients[0].ask(b"QUIT")[:3] == b"221"
        assert one_more.reply().startswith(b"220 ")
        for client in clients[1:]:
            client.say(b".\r\nQUIT\r\n")
        for client in clients[1:]:
            assert client.codes(2) == [250, 221]
    suite.send(ANN, b"Subject: 100\r\n\r\nx\r\n")
    suite.wait_for_mail(SESSIONS + 1, limit_s=60)
    suite.wait_until_idle()
    assert _subjects(suite) == list(range(SESSIONS + 1))


def test_slow_senders_of_large_messages(suite: Suite) -> None:
    """Sessions that are in the middle of messages too large for one datagram keep nobody else from handing in mail."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Dialogue(suite.smtp_port)) for _ in range(60)]
        for number, client in enumerate(clients):
            client.say(BEGIN)
            assert client.codes(5) == BEGUN
            client.say(b"Subject: %d\r\n\r\n" % number + (b"x" * 998 + b"\r\n") * 200)
        suite.wait_for(lambda: len(os.listdir(suite.home / "queue/tmp")) == len(clients), "all of them on the disk")
        suite.send(ANN, b"Subject: 60\r\n\r\nx\r\n")
        suite.wait_for_mail()
        for client in clients:
            client.say(b".\r\n")
        assert [client.codes(1) for client in clients] == [[250]] * len(clients)
    suite.wait_until_idle(60)
    assert _subjects(suite) == list(range(61))


def _fill(folder: Path, count: int) -> None:
    """Messages with the names that deliveries give; hard links, at most 60,000 to a file."""
    text = b"Subject: x\n\nbody\n"
    for number in range(count):
        if not number % 60_000:
            base = folder / f"1700000000.Q{number:018}R0L1.host,S={len(text)},W=20"
            base.write_bytes(text)
            os.chown(base, folder.stat().st_uid, folder.stat().st_gid)
        else:
            os.link(base, f"{folder}/{1700000000 + number}.Q{number:018}R0L1.host,S={len(text)},W=20:2,")


def test_a_mailbox_of_100_000_messages(suite: Suite) -> None:
    """It opens within seconds, without a look into the messages; all of POP3 works in it, and so does delivery."""
    count = 100_000
    _fill(suite.maildir() / "cur", count)
    began_s = time.monotonic()
    client = suite.pop3()
    assert client.stat() == (count, 20 * count)
    assert time.monotonic() - began_s < 10
    assert client.uidl(count).endswith(b"R0L1.host") and client.list(1) == b"+OK 1 20"
    listing, uidls = client.list()[1], client.uidl()[1]
    assert len(listing) == len(set(uidls)) == count and listing[-1] == b"100000 20"
    assert client.retr(77_777)[1] == [b"Subject: x", b"", b"body"]
    client.dele(count)
    assert client.quit().startswith(b"+OK")
    suite.send(ANN, b"Subject: new\r\n\r\nx\r\n")
    suite.wait_for(lambda: os.listdir(suite.maildir() / "new"), "delivery")
    client = suite.pop3()
    assert client.stat()[0] == count
    client.quit()
    assert len(os.listdir(suite.maildir() / "cur")) == count


def _peaks(suite: Suite) -> dict[int, int]:
    """The most memory that each process of the suite has had, in bytes."""
    found = {}
    for pid in suite.pids():
        try:
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            continue
        if peak is not None:  # else it is dead already
            found[pid] = int(peak[1]) * 1024
    return found


def test_the_memory_of_a_message_of_50_mib(suite: Suite) -> None:
    """It goes in by SMTP, through queue and delivery, and out by POP3, and no process holds much of it."""
    line = b"x" * 1022 + b"\r\n"
    lines = 50 * MIB // 1023 - 1  # databytes counts a line end as one
    suite.pop3().quit()  # who checks passwords needs memory, but not for this
    known = _peaks(suite)
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN)
        assert client.codes(5) == BEGUN
        client.say(b"Subject: 1\r\n\r\n")
        client.pour(line * 64 for _ in range(lines // 64))
        assert client.ask(b".").startswith(b"250 ")
        suite.wait_for(lambda: os.listdir(suite.maildir() / "new"), "delivery", 60)
        with Dialogue(suite.pop3_port) as reader:
            reader.say(b"USER ann\r\nPASS secret\r\nRETR 1\r\n")
            assert [reader.line()[:3] for _ in range(4)] == [b"+OK"] * 4
            text = reader.text()
            peaks = _peaks(suite)
    assert len(text) > 50 * MIB and text.count(line) == lines // 64 * 64
    assert all(peak < known.get(pid, 24 * MIB) + 6 * MIB for pid, peak in peaks.items()), (known, peaks)
    assert len(peaks) > 10
