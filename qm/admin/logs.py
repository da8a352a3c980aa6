"""qm log: everything that the log directory says of one message or one address, across programs, in time order.

The files are read twice, line by line: once to learn which messages and sessions the subject has to do with, once to
gather what is said of these.
"""

import os
import re
import time
from collections import OrderedDict
from datetime import datetime
from typing import Final

import click

from qm.admin import place
from qm.admin.logfiles import Line, lines
from qm.admin.screen import printable, show
from qm.errors import OK, Permanent
from qm.wire import queueid
from qm.wire.logline import Entry, render

NOTHING: Final = 1
FOUND_MAX: Final = 100_000  # lines that are shown; the first ones
IDS_MAX: Final = 10_000  # messages of an address
SESSIONS_MAX: Final = 10_000  # that are remembered at once
LINES_MAX: Final = 2_000  # of one session that are remembered
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}
_BEGINNING: Final = frozenset(("connect", "helo", "tls", "login"))
_ID: Final = re.compile(r"[0-9a-z]{18,21}")


class Subject:
    """The address or ID that was asked for, and the messages that it has to do with."""

    def __init__(self, text: str) -> None:
        self._word = re.compile(rf"(?<![\w@.+-]){re.escape(text)}(?![\w@-])", re.IGNORECASE)
        self.ids = {text} if queueid.valid(text.encode("utf-8", "replace")) else set()

    def is_named(self, entry: Entry) -> bool:
        """Whether a line has the subject, or one of its messages, in it."""
        for value in entry.fields.values():
            if isinstance(value, str) and (self._word.search(value) or not self.ids.isdisjoint(_ID.findall(value))):
                return True
        return False

    def add(self, *ids: object) -> None:
        if len(self.ids) < IDS_MAX:
            self.ids.update(str(one) for one in ids if one)


class _Session:
    """A session of smtpd or another: what it has said, as far as it has not been shown."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.wanted = False  # this transaction
        self.ever = False

    def add(self, line: Line, *, named: bool) -> None:
        if line[1].event == "mail":
            self.lines = [known for known in self.lines if known[1].event in _BEGINNING]
            self.wanted = False
        self.lines.append(line)
        del self.lines[LINES_MAX:]
        self.wanted = self.wanted or named
        self.ever = self.ever or named

    def told(self) -> list[Line]:
        """What is to be shown now."""
        if not self.wanted and not (self.ever and self.lines[-1][1].event == "end"):
            return []
        lines, self.lines = self.lines, []
        return lines


class Reader:
    """One reading of the log: learns messages that have to do with the subject, and finds what is said of them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._sessions: OrderedDict[tuple[str, int], _Session] = OrderedDict()
        self._deliveries: dict[object, None] = {}  # numbers of those under way
        self.found: list[Line] = []

    def take(self, line: Line) -> None:
        entry = line[1]
        named = self._subject.is_named(entry)
        if entry.pid is not None:
            self._session(line, named=named)
        elif entry.event == "delivery":
            if entry.fields["number"] in self._deliveries:
                del self._deliveries[entry.fields["number"]]
                self.found.append(line)
        elif named:
            self._subject.add(*(entry.fields.get(name) for name in ("msg", "report")))
            if entry.event == "start":
                self._deliveries[entry.fields["number"]] = None
            self.found.append(line)
        elif entry.event == "start":
            self._deliveries.pop(entry.fields["number"], None)  # numbers begin anew with each qm-send

    def _session(self, line: Line, *, named: bool) -> None:
        entry = line[1]
        key = entry.program, entry.pid or 0
        if entry.event == "connect" or key not in self._sessions:
            self._sessions.pop(key, None)
            self._sessions[key] = _Session()
            if len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)
        session = self._sessions[key]
        session.add(line, named=named)
        if session.wanted:
            self._subject.add(entry.fields.get("id"))
        self.found += session.told()
        if entry.event == "end":
            del self._sessions[key]


def gather(folder: str, text: str, since_ns: int = 0) -> list[Line]:
    """The lines that have to do with *text*, FOUND_MAX at most, in time order; raises OSError."""
    subject = Subject(text)
    if not text:
        return []
    for _ in range(2):
        reader = Reader(subject)
        for line in lines(folder, since_ns):
            reader.take(line)
            del reader.found[FOUND_MAX:]
    return sorted(reader.found, key=lambda line: line[0])


def _words(entry: Entry) -> str:
    shown = " ".join(str(v) if name == "text" else f"{name}={v}" for name, v in entry.fields.items())
    who = f"{entry.program or '?'}[{entry.pid}]" if entry.pid is not None else entry.program or "?"
    level = "" if entry.level == "info" else f"{entry.level} "
    return f"{who} {level}{'' if entry.event == 'text' else entry.event + ' '}{shown}"


def _local(time_ns: int) -> str:
    when = datetime.fromtimestamp(time_ns // 1_000_000_000).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"


def _since(context: click.Context, parameter: click.Parameter, value: str | None) -> int:
    """A time of day and year, or how long ago: in ns since 1970."""
    if value is None:
        return 0
    if value[:-1].isdecimal() and value[-1] in _UNITS and len(value) < 10:
        return time.time_ns() - int(value[:-1]) * _UNITS[value[-1]] * 1_000_000_000
    try:
        return int(datetime.fromisoformat(value).astimezone().timestamp()) * 1_000_000_000
    except (ValueError, OverflowError, OSError) as error:
        raise click.BadParameter("a time like 2026-11-24T08:30, or how long ago: 30m, 6h, 2d") from error


@click.command("log", short_help="what the log says of a message or an address")
@place.home_option
@click.option("--since", metavar="TIME", callback=_since, help="from 2026-11-24T08:30 on, or of the last 30m, 6h, 2d")
@click.option("--json", "as_json", is_flag=True, help="an object a line")
@click.argument("subject", metavar="ID|ADDRESS")
def command(home: str, since: int, as_json: bool, subject: str) -> int:
    """Show what the log says of a message, by its queue ID, or of an address; the exit code is 1 if that is nothing."""
    folder = os.path.join(home, "log")
    if not os.path.isdir(folder):
        raise Permanent(f"{home} has no log directory", detail="logs that go elsewhere are searched there")
    found = gather(folder, subject, since)
    for time_ns, entry in found:
        show(render(time_ns, entry) if as_json else printable(f"{_local(time_ns)} {_words(entry)}"))
    return OK if found else NOTHING
