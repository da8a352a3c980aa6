"""A suite in which everything happens at once, and each act is held in its middle: every kind of process is there."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.harness.dialogue import Dialogue
from tests.harness.peers import ScriptedMx
from tests.harness.scene import Scene
from tests.harness.suite import BIN, DOMAIN, Suite, wait_for

ANN: Final = f"ann@{DOMAIN}"
MESSAGE: Final = b"Subject: hello\n\nbody\n"
BEGIN: Final = f"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
HELD: Final = (f"joe@{DOMAIN}", f"fay@{DOMAIN}", "far@far.example"), (f"nobody@{DOMAIN}",)  # recipients, a message each


def in_smtp_data(client: Dialogue, lines: int) -> None:
    """Be in the middle of a message, after so many kB of it."""
    assert client.line()[:3] == b"220"
    client.say(BEGIN)
    assert client.codes(4) == [250, 250, 250, 354]
    client.say(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * lines)


def in_pop3_session(client: Dialogue) -> None:
    assert client.line()[:3] == b"+OK"
    assert client.ask(b"USER ann") == b"+OK"
    assert client.ask(b"PASS secret").startswith(b"+OK")
    assert client.ask(b"STAT").startswith(b"+OK")


class Busy:
    """Mail in by SMTP and by hand; to a Maildir, a program, a forward, another host, back to the sender; POP3.

    The queue's door and userd stand still until `release`, so that who needs them waits.
    """

    def __init__(self, suite: Suite, folder: Path, stack: ExitStack) -> None:
        self.suite = suite
        self.others: list[int] = []  # of programs that are not the suite's
        self._stack = stack
        self._stopped: dict[str, int] = {}
        self._mx = stack.enter_context(ScriptedMx(folder, {"greeting": ["!hang"]}))
        self._configure()
        suite.start()
        suite.send([ANN, f"list@{DOMAIN}"], MESSAGE.replace(b"\n", b"\r\n"))
        suite.wait_for_mail()
        suite.wait_until_idle()
        self._hold_deliveries()
        self._hold_clients()

    def _configure(self) -> None:
        self.suite.add_user("joe", "secret")
        self.suite.add_user("fay", "secret")
        self.suite.control("smtproutes", f":127.0.0.1:{self._mx.port}\n")
        self.suite.control("smtpauth", f"127.0.0.1:{self._mx.port}:plain ann secret\n", 0o600)
        hold = self.suite.home / "home/joe/hold"
        os.mkfifo(hold)
        os.chown(hold, hold.parent.stat().st_uid, -1)
        keep = os.open(hold, os.O_RDWR)  # who reads it waits until we close it
        self._stack.callback(os.close, keep)
        self.suite.dot_qmail("joe", "|cat hold\n")
        self.suite.dot_qmail("fay", f"&{ANN}\n")
        self.suite.dot_qmail("alias", "|exit 0\n", "-list")

    def _pause(self, name: str) -> None:
        pid = self.suite.pid_of(name)
        os.kill(pid, signal.SIGSTOP)
        self._stopped[name] = pid

    def release(self, *names: str) -> None:
        """Let those of *names* who stand still go on; without names all."""
        for name in names or tuple(self._stopped):
            os.kill(self._stopped.pop(name), signal.SIGCONT)

    def _hold_deliveries(self) -> None:
        suite = self.suite
        self._pause("qm-send")
        for recipients in HELD:
            envelope = "".join([f"F{ANN}\0", *(f"T{address}\0" for address in recipients), "\0"])
            assert suite.queue(MESSAGE, envelope.encode()) == 0
        in_smtp_data(self._client("smtp"), 300)
        suite.wait_for(lambda: os.listdir(suite.home / "queue/tmp"), "a file that grows")
        self._inject()
        self._pause("qm-queued")
        self.release("qm-send")
        wait_for(lambda: {"qm-remote", "qm-send's worker", "a program of a .qmail file"} <= self._names(), "deliveries")
        wait_for(lambda: any(p.kinds.count("a channel") > 1 for p in self.look().named("qm-local")), "a forward")

    def _names(self) -> set[str]:
        return {process.name for process in self.look().processes}

    def _inject(self) -> None:
        """A user's qm-queue that has not read all of its message."""
        uid = self.suite.maildir().stat().st_uid
        command = ["/usr/bin/python3", "-bb", "-IS", str(BIN / "qm-queue")]
        null = subprocess.DEVNULL
        process = subprocess.Popen(
            command, env=self.suite.env, cwd="/", user=uid, group=uid, extra_groups=[], stdin=subprocess.PIPE,
            stdout=null, stderr=null,
        )  # fmt: skip
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        self.others.append(process.pid)
        wait_for(lambda: any("a channel" in p.kinds for p in self.look().named("qm-queue")), "a user's qm-queue")

    def _client(self, service: str) -> Dialogue:
        return self._stack.enter_context(Dialogue(self.suite.port(service)))

    def _hold_clients(self) -> None:
        assert self._client("smtp").line()[:3] == b"220"
        assert self._client("pop3").line()[:3] == b"+OK"
        in_pop3_session(self._client("pop3"))
        tls = self._stack.enter_context(self.suite.under_tls("pop3s"))
        assert tls.recv(100)[:3] == b"+OK"
        self._pause("qm-userd")
        client = self._client("pop3")
        assert client.line()[:3] == b"+OK"
        client.say(b"USER joe\r\nPASS secret\r\n")
        wait_for(lambda: "checkpassword" in self._names(), "a login that waits")

    def look(self) -> Scene:
        return Scene(self.suite, self.others)


@contextmanager
def busy(suite: Suite, folder: Path) -> Iterator[Busy]:
    """*suite* is not started yet, and lies where every user can reach it; *folder* is for what the peers write down."""
    with ExitStack() as stack:
        held = Busy(suite, folder, stack)
        try:
            yield held
        finally:
            held.release()
