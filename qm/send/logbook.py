"""send's log lines, in the shapes that log analysers parse (qmail.md 7.9); written once for each turn of the loop."""

from typing import Final

from qm.disk.state import Outcome
from qm.send.message import Message, Recipient
from qm.send.policy import printable
from qm.send.schedule import Turns
from qm.unix import log

NAME: Final = b"qm-send"
_WORD: Final = {b"K": b"success", b"Z": b"deferral", b"D": b"failure"}
TEXT_MAX: Final = 1000  # bytes of a report in a line


def words(recipient: Recipient, outcome: Outcome) -> bytes:
    """What sendmail -v shows of an outcome."""
    return b"%b... %b: %b" % (recipient.address, _WORD[outcome.letter], outcome.text.replace(b"\n", b" ").rstrip())


class Logbook:
    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._status = b""

    def flush(self) -> None:
        if self._lines:
            log.write_lines(self._lines)
            self._lines.clear()

    def _say(self, line: bytes) -> None:
        self._lines.append(line)

    def new(self, name: bytes) -> None:
        self._say(b"new msg " + name)

    def info(self, message: Message) -> None:
        envelope = message.file.envelope
        self._say(
            b"info msg %b: bytes %d from <%b> qp %d uid %d"
            % (message.id, message.file.message_length, printable(envelope.sender), envelope.pid, envelope.uid)
        )

    def starting(self, number: int, message: Message, recipient: Recipient) -> None:
        where = b"local" if recipient.is_local else b"remote"
        self._say(b"starting delivery %d: msg %b to %b %b" % (number, message.id, where, printable(recipient.address)))

    def ended(self, number: int, outcome: Outcome) -> None:
        self._say(b"delivery %d: %b: %b" % (number, _WORD[outcome.letter], printable(outcome.text[:TEXT_MAX])))

    def bounce(self, name: bytes, report: bytes) -> None:
        self._say(b"bounce msg %b qp %b" % (name, report))

    def triple_bounce(self, name: bytes) -> None:
        self._say(b"triple bounce: discarding bounce/" + name)

    def end(self, name: bytes) -> None:
        self._say(b"end msg " + name)

    def status(self, local: Turns[Message], remote: Turns[Message], stopping: bool) -> None:
        """Said when it has changed since the last turn."""
        line = b"status: local %d/%d remote %d/%d" % (local.busy, local.limit, remote.busy, remote.limit)
        if stopping:
            line += b" exitasap"
        if line != self._status:
            self._status = line
            self._say(line)

    def exiting(self) -> None:
        self._say(b"status: exiting")

    def warning(self, text: str) -> None:
        self._say(b"warning: " + log.clean(text.encode("utf-8", "backslashreplace")))

    def alert(self, text: str) -> None:
        self._say(b"alert: " + log.clean(text.encode("utf-8", "backslashreplace")))
