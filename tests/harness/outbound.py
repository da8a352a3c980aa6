"""A suite whose mail for other hosts goes to fakes, and readers for the reports that come back."""

import email
import email.policy
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, Final, NamedTuple

from flufl.bounce import all_failures

from qm.disk import state
from tests.harness.peers import ScriptedMx
from tests.harness.suite import DOMAIN, Suite
from tests.harness.waiting import LIMIT_S

ANN: Final = f"ann@{DOMAIN}"
MESSAGE: Final = b"From: ann@test.example\r\nTo: bob@x.test\r\nSubject: hello\r\n\r\nfirst\r\n.second\r\nlast\r\n"
DSN: Final = "250-mx.test\r\n250-PIPELINING\r\n250-DSN\r\n250 8BITMIME"


class Report(NamedTuple):
    """A delivery report, as programs of others read it."""

    text: bytes  # as it was delivered
    failed: set[str]  # flufl.bounce's finding
    delayed: set[str]
    fields: Mapping[str, str]  # of the message
    recipients: Sequence[Mapping[str, str]]  # fields, one mapping each
    people: str  # the part for them
    returned: Message  # the part with the message, or its header


def read_report(text: bytes) -> Report:
    delayed, failed = all_failures(email.message_from_bytes(text))
    parsed = email.message_from_bytes(text, policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report", text
    people, status, returned = parsed.get_payload()  # type: ignore[misc]
    fields, *recipients = [dict(block.items()) for block in status.get_payload()]
    named = [{address.decode() for address in found} for found in (failed, delayed)]
    return Report(text, *named, fields, recipients, people.get_content(), returned)


class Outbound:
    """*suite*, started, with routes, and control files; whoever speaks SMTP to it may relay."""

    def __init__(self, suite: Suite, routes: Mapping[str, int] = {}, **controls: str) -> None:
        self.suite = suite
        suite.env["RELAYCLIENT"] = ""
        if routes:
            self.route(routes)
        for name, value in controls.items():
            suite.control(name, f"{value}\n")
        suite.start()

    def route(self, routes: Mapping[str, int]) -> None:
        """A domain's port of 127.0.0.1; the empty one is all others'."""
        self.suite.control("smtproutes", "".join(f"{host}:127.0.0.1:{port}\n" for host, port in routes.items()))

    def send(
        self, *recipients: str, message: bytes = MESSAGE, sender: str = ANN,
        mail: Sequence[str] = (), rcpt: Sequence[str] = (),
    ) -> str:  # fmt: skip
        """By SMTP, with parameters of MAIL and, the same for each, of RCPT; the message's ID."""
        with self.suite.smtp() as client:
            client.ehlo()
            code, text = client.mail(sender, mail)
            assert code == 250, text
            for recipient in recipients:
                code, text = client.rcpt(recipient, rcpt)
                assert code == 250, text
            code, text = client.data(message)
            assert code == 250, text
        found = re.search(r"id (\w+)", text.decode())
        assert found is not None
        return found[1]

    def reports(self, count: int = 1) -> list[Report]:
        """The first *count* reports that ann has got."""
        return [read_report(text) for text in self.suite.wait_for_mail(count)]

    def report(self) -> Report:
        (report,) = self.reports()
        return report

    def wait_for_end(self, name: str, limit_s: float = LIMIT_S) -> None:
        self.suite.wait_for_log(f"^end msg {name}$", limit_s)

    def ended(self, address: str, limit_s: float = LIMIT_S) -> str:
        """How the first delivery to *address* has ended: success, deferral or failure."""
        pattern = rf"^starting delivery (\d+): msg \w+ to remote {re.escape(address)}$"
        number = self.suite.wait_for_log(pattern, limit_s)[1]
        return self.suite.wait_for_log(rf"^delivery {number}: (\w+): ", limit_s)[1]

    def history(self, name: str) -> list[state.Outcome]:
        return list(state.read(os.fsencode(self.suite.home / "queue" / "state" / name)))

    def all_due(self) -> None:
        self.suite.signal(signal.SIGALRM)

    def try_again(self, done: Callable[[], Any], what: str) -> Any:
        """SIGALRM, as often as it takes: one that comes while a message is being tried is not for that one."""
        return self.suite.wait_for(lambda: done() or self.all_due(), what)


Mx = Callable[..., ScriptedMx]


def mail_from(mx: ScriptedMx) -> list[str]:
    return [line for line in mx.lines() if line.startswith("MAIL")]


def rcpt_to(mx: ScriptedMx) -> list[str]:
    return [line for line in mx.lines() if line.startswith("RCPT")]


def several_mx(folder: Path) -> Iterator[Mx]:
    """For a fixture: makes exchangers that do what a script says, ``mx(MAIL=["451 later"])``."""
    running: list[ScriptedMx] = []

    def make(address: str = "127.0.0.1", **script: list[Any]) -> ScriptedMx:
        actions = {key.replace("dot", "."): actions for key, actions in script.items()}
        running.append(ScriptedMx(folder, actions, address))
        return running[-1]

    yield make
    for mx in running:
        mx.stop()
