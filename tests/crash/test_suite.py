"""The whole suite under load, killed at random moments: all of it, or one process after another.

What got 250 is in the mailbox exactly once, nothing is there that nobody sent, what POP3 has promised to remove stays
removed, and in the end the queue is empty.
"""

import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.dialogue import Dialogue, open_files
from tests.harness.suite import DOMAIN, Suite, wait_for

ANN = f"ann@{DOMAIN}"
ROUNDS = 10
SENDERS = 4
KINDS = (("ann",), ("ann", "carol"), ("dave",))  # dave's mail is forwarded to erin


def _text(name: str) -> bytes:
    """A message; some are too large for one datagram to the queue."""
    return f"Subject: {name}\r\n\r\n".encode() + b"x\r\n" * (40_000 if name.endswith("7") else 10)


class Load:
    """Clients that send one message after another, whatever happens to their server, until they are told to stop."""

    def __init__(self, suite: Suite, label: str) -> None:
        self.sent: dict[str, tuple[str, ...]] = {}  # name to recipients
        self.taken: list[str] = []  # got 250
        self._suite = suite
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"{label}-{n}",)) for n in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _run(self, label: str) -> None:
        count = 0
        while not self._stop.wait(0.001):
            try:
                with Dialogue(self._suite.smtp_port) as client:
                    client.ask(b"EHLO client.example")
                    client.reply()
                    while not self._stop.is_set():
                        count += 1
                        self._send(client, f"{label}-{count}", KINDS[count % len(KINDS)])
            except OSError:
                pass  # its server has died; there will be another

    def _send(self, client: Dialogue, name: str, recipients: tuple[str, ...]) -> None:
        lines = [b"MAIL FROM:<>\r\n", *(f"RCPT TO:<{r}@{DOMAIN}>\r\n".encode() for r in recipients), b"DATA\r\n"]
        client.say(b"".join(lines))
        _, *codes, data = client.codes(len(lines))
        if not data:
            raise ConnectionResetError
        if data != 354:  # nobody is there just now who could say that they exist, or take it
            client.ask(b"RSET")
            return
        self.sent[name] = tuple(r for r, code in zip(recipients, codes, strict=True) if code == 250)
        if client.ask(_text(name) + b".").startswith(b"250 "):
            self.taken.append(name)

    def wait_for(self, count: int) -> None:
        """Until so many messages were taken."""
        wait_for(lambda: len(self.taken) >= count, f"{count} messages", 60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def _load(suite: Suite, label: str = "0") -> Iterator[Load]:
    load = Load(suite, label)
    try:
        yield load
    finally:
        load.stop()


def _found(suite: Suite, mailbox: str) -> Counter[str]:
    """The names of the messages in a mailbox, each as often as it is there."""
    subjects = (re.search(rb"^Subject: (.*)$", text, re.MULTILINE) for text in suite.mail(mailbox))
    return Counter(match[1].decode() for match in subjects if match is not None)


def _check(suite: Suite, loads: list[Load], removed: set[str] = frozenset(), maybe: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """That the promises of the module's docstring were kept; *removed* and *maybe* removed from ann's mailbox."""
    sent = {name: recipients for load in loads for name, recipients in load.sent.items()}
    taken = {name for load in loads for name in load.taken}
    assert taken
    for mailbox in ("ann", "carol"):
        found = _found(suite, mailbox)
        gone, doubtful = (removed, maybe) if mailbox == "ann" else (set(), set())
        wanted = {name for name in taken if mailbox in sent[name]}
        assert found.keys() <= {name for name in sent if mailbox in sent[name]}, "invented"
        assert wanted - gone - doubtful <= found.keys(), "lost"
        assert not found.keys() & gone, "removed and back"
        assert set(found.values()) <= {1}, "delivered twice"
    found = _found(suite, "erin")  # a forward may come twice when a crash parts it from its memory (RFC 1047)
    assert {name for name in taken if sent[name] == ("dave",)} <= found.keys() <= sent.keys()
    assert not any(os.listdir(suite.home / "queue" / name) for name in ("new", "cur", "bad"))


def _idle(suite: Suite) -> None:
    """Until the queue is empty, tmp apart, where a crash leaves litter."""
    folders = [suite.home / "queue" / name for name in ("new", "cur")]
    suite.wait_for(lambda: suite.signal(signal.SIGALRM) or not any(map(os.listdir, folders)), "an empty queue", 60)


@pytest.fixture
def crowd(make_suite: Callable[[], Suite]) -> Suite:
    """A suite with the mailboxes of the load; it may say that something has died."""
    suite = make_suite()
    suite.allowed_alerts.append("")
    for name in ("carol", "dave", "erin"):
        suite.add_user(name, "secret")
    suite.dot_qmail("dave", f"&erin@{DOMAIN}\n")
    return suite.start()


class Reader:
    """Somebody who fetches and removes mail by POP3, five messages a session, until the server dies."""

    def __init__(self, suite: Suite) -> None:
        self.removed: set[str] = set()
        self.maybe: set[str] = set()  # QUIT was said and not answered
        self._port = suite.pop3_port
        # only what was settled before the load began: a delivery that send does not know of yet would be repeated
        self._known = {path.name.partition(",")[0].encode() for path in suite.maildir().glob("[nc]*/*")}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._session():
                pass
        except OSError:
            pass

    def _session(self) -> bool:
        """One session; False when there is nothing more to remove."""
        names: set[str] = set()
        with Dialogue(self._port) as client:
            client.say(b"USER ann\r\nPASS secret\r\nUIDL\r\n")
            for _ in range(4):
                if not client.line().startswith(b"+OK"):
                    raise ConnectionResetError
            for line in client.text().splitlines():
                number, uidl = line.split()
                if uidl in self._known and len(names) < 5:
                    client.say(b"RETR %b\r\nDELE %b\r\n" % (number, number))
                    names.add(self._name(client))
                    client.line()
            self.maybe |= names
            if client.ask(b"QUIT").startswith(b"+OK"):
                self.removed |= names
                self.maybe -= names
        return bool(names)

    @staticmethod
    def _name(client: Dialogue) -> str:
        if not client.line().startswith(b"+OK"):
            raise ConnectionResetError
        match = re.search(rb"^Subject: (.*)\r$", client.text(), re.MULTILINE)
        if match is None:
            raise ConnectionResetError
        return match[1].decode()

    def stop(self) -> None:
        self._thread.join(30)


def test_the_whole_suite_killed_under_load(crowd: Suite) -> None:
    """Everything is killed at once, again and again, while mail comes in and goes out."""
    chance = random.Random(1982)
    loads, removed, maybe = [], set[str](), set[str]()
    for number in range(ROUNDS):
        reader = Reader(crowd)
        with _load(crowd, str(number)) as load:
            load.wait_for(chance.randrange(1, 60))
            if number % 2:
                wait_for(lambda r=reader: r.removed, "a session that removes mail")
            crowd.kill()
        reader.stop()
        loads.append(load)
        removed |= reader.removed
        maybe |= reader.maybe
        crowd.start()
        _idle(crowd)
        _check(crowd, loads, removed, maybe)
    crowd.restart()
    assert not os.listdir(crowd.home / "queue/state")
    _check(crowd, loads, removed, maybe)


def test_workers_killed_under_load(crowd: Suite) -> None:
    """One worker after another is killed, whichever it is: sessions break, nothing else does."""
    chance = random.Random(821)
    programs = set(crowd.pids())
    with _load(crowd) as load:
        for count in range(40):
            load.wait_for(5 * count)
            workers = [pid for pid in crowd.pids() if pid not in programs]
            if workers:
                _kill(chance.choice(workers))
        load.wait_for(len(load.taken) + 20)
    assert programs <= set(crowd.pids()), "a program has died of it"
    ann = {name for name in load.taken if "ann" in load.sent[name]}
    crowd.wait_for(lambda: crowd.signal(signal.SIGALRM) or ann <= _found(crowd, "ann").keys(), "what was taken", 60)
    crowd.restart()  # what a worker of the queue had published and not yet told anybody of is found by looking
    _idle(crowd)
    _check(crowd, [load])


@pytest.mark.parametrize("name", ["qm-userd", "qm-lspawn"])
def test_a_program_killed_under_load(crowd: Suite, name: str) -> None:
    """A program that dies takes its group with it, which comes back; meanwhile clients are told to come again."""
    with _load(crowd) as load:
        load.wait_for(20)
        _kill(crowd.pid_of(name))
        crowd.wait_for_log("starting it again")
        load.wait_for(len(load.taken) + 50)
    crowd.restart()
    _idle(crowd)
    _check(crowd, [load])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# one worker, at a chosen moment

BEGIN = f"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
LARGE = (b"x" * 998 + b"\r\n") * 300


def test_smtpd_killed_in_data(suite: Suite) -> None:
    """The client sees the connection close, and nothing is queued, whether nothing, a little or much had come."""
    for text in (b"", b"Subject: cut\r\n\r\n", b"Subject: cut\r\n\r\n" + LARGE):
        with Dialogue(suite.smtp_port) as client:
            client.say(BEGIN)
            assert client.codes(5) == [220, 250, 250, 250, 354]
            client.say(text)
            if LARGE in text:
                suite.wait_for(lambda: os.listdir(suite.home / "queue/tmp"), "a file that grows")
            (worker,) = client.holders(suite.pids())
            _kill(worker)
            assert client.rest() == b""
        suite.wait_until_idle()
    suite.send(ANN, b"Subject: next\r\n\r\nx\r\n")
    suite.wait_for_mail()
    assert _found(suite, "ann") == {"next": 1}


def _writer(suite: Suite) -> int:
    """The process that writes a message into queue/tmp."""
    begin = f"{suite.home}/queue/tmp/"
    return next((pid for pid in suite.pids() if any(p.startswith(begin) for p in open_files(pid).values())), 0)


@pytest.mark.alerts(r"worker \d+ ended with -9")
def test_a_queue_worker_killed_in_a_message(suite: Suite) -> None:
    """The client is told to send it again, and that is then there once."""
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN)
        assert client.codes(5) == [220, 250, 250, 250, 354]
        client.say(b"Subject: large\r\n\r\n" + LARGE)
        _kill(suite.wait_for(lambda: _writer(suite), "who writes"))
        assert client.ask(LARGE + b".").startswith(b"451 ")
        client.say(BEGIN + b"Subject: large\r\n\r\n" + LARGE + b".\r\n")
        assert client.codes(5) == [250, 250, 250, 354, 250]
    suite.wait_for_mail()
    suite.wait_for(lambda: not os.listdir(suite.home / "queue/cur"))
    assert _found(suite, "ann") == {"large": 1}


def test_a_local_worker_killed_in_a_delivery(suite: Suite) -> None:
    """The delivery is deferred; what it had put into the Maildir is not put there again by the next one."""
    fifo = suite.home / "home/ann/go"
    os.mkfifo(fifo)
    os.chown(fifo, suite.maildir().stat().st_uid, -1)
    suite.dot_qmail("ann", "./Maildir/\n|read word <go\n")
    suite.send(ANN, b"Subject: once\r\n\r\nx\r\n")
    suite.wait_for_mail()
    shell = suite.wait_for(lambda: _reader_of(suite, "read word"), "the program")
    worker = int(Path(f"/proc/{shell}/stat").read_text().rpartition(")")[2].split()[1])
    _kill(worker)
    suite.wait_for_log(r"delivery \d+: deferral: The_delivery_was_cut_short\._\(#4\.3\.0\)/")
    with open(fifo, "w") as file:
        file.write("go\n")
    wait_for(lambda: not Path(f"/proc/{shell}").exists(), "the end of the orphan")
    suite.dot_qmail("ann", "./Maildir/\n")
    _idle(suite)
    assert _found(suite, "ann") == {"once": 1}


def _reader_of(suite: Suite, words: str) -> int:
    """The shell that runs *words*."""
    for pid in suite.pids():
        try:
            if words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    return 0
