"""Log lines, read: what each shape of qm.unix.log and of send's logbook says, as typed fields; and those as JSON.

The shapes cannot be confused: a stranger's text stands where no blank can be, or at the end of a line.  What has no
known shape is the event "text".

json and datetime are imported where they are used: qm-log is resident, and needs them only if somebody wants JSON.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

Value = str | int | float | bool

TAI_OFFSET_S: Final = (1 << 62) + 10  # 1970 in TAI64, as multilog has it
SEND: Final = "qm-send"  # its lines have no name before them (qmail.md 7.9)
_LABEL: Final = re.compile(rb"@([0-9a-f]{16})([0-9a-f]{8}) ")
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,31}): (.*)")
_SESSION: Final = re.compile(r"(\d{1,10}) ([a-z]+)((?: [a-z]+=\S*)+)")
_KIND: Final = re.compile(r"(alert|fatal|warning): (.*)")
_NUMBERS: Final = frozenset(
    (
        "code",
        "size",
        "recipients",
        "in",
        "out",
        "bytes",
        "messages",
        "retrieved",
        "removed",
        "left",
        "uid",
        "gid",
        "peerpid",
        "qp",
        "port",
    )
    + ("number", "status", "count", "limit", "local", "remote")
)
_BOOLS: Final = {"yes": True, "no": False}
_Shape = tuple[str, re.Pattern[str]]
_OF_SEND: Final[tuple[_Shape, ...]] = (
    ("delivery", re.compile(r"delivery (?P<number>\d+): (?P<result>success|deferral|failure): (?P<text>.*)")),
    ("start", re.compile(r"starting delivery (?P<number>\d+): msg (?P<msg>\S+) to (?P<channel>\S+) (?P<to>.*)")),
    ("new", re.compile(r"new msg (?P<msg>\S+)")),
    (
        "info",
        re.compile(
            r"info msg (?P<msg>\S+): bytes (?P<bytes>\d+) from <(?P<from>.*)>"
            r" qp (?P<qp>\d+) uid (?P<uid>\d+)"
        ),
    ),
    ("end", re.compile(r"end msg (?P<msg>\S+)")),
    ("bounce", re.compile(r"bounce msg (?P<msg>\S+) qp (?P<report>\S+)")),
    ("mangled", re.compile(r"delivery (?P<number>\d+): report mangled, will defer")),
    ("triple", re.compile(r"triple bounce: discarding bounce/(?P<msg>\S+)")),
    (
        "status",
        re.compile(
            r"status: local (?P<local>\d+)/(?P<locallimit>\d+)"
            r" remote (?P<remote>\d+)/(?P<remotelimit>\d+).*"
        ),
    ),
    ("exiting", re.compile(r"status: exiting")),
)  # fmt: skip
_OF_TCPSERVER: Final[tuple[_Shape, ...]] = (
    ("status", re.compile(r"status: (?P<count>\d+)/(?P<limit>\d+)")),
    ("pid", re.compile(r"pid (?P<pid>\d+) from (?P<ip>\S+)")),
    (
        "verdict",
        re.compile(
            r"(?P<verdict>ok|deny) (?P<pid>\d+) (?P<here>\S+)"
            r" (?P<host>[^:]*):(?P<ip>\S*):(?P<info>[^:]*):(?P<port>\d+)"
        ),
    ),
    ("end", re.compile(r"end (?P<pid>\d+) status (?P<status>\d+)")),
)  # fmt: skip
_OF_IPCSERVER: Final[tuple[_Shape, ...]] = (
    _OF_TCPSERVER[0],
    ("pid", re.compile(r"pid (?P<pid>\d+) from uid (?P<uid>\d+)")),
    ("verdict", re.compile(r"(?P<verdict>ok) (?P<pid>\d+) (?P<here>\S+) (?P<uid>\d+):(?P<gid>\d+):(?P<peerpid>\d+)")),
    _OF_TCPSERVER[-1],
)
_OF_CHECKPASSWORD: Final[tuple[_Shape, ...]] = (
    ("login", re.compile(r"login (?P<user>\S*) from (?P<ip>\S+): ok, uid (?P<uid>\d+)")),
    ("refused", re.compile(r"login (?P<user>\S*) from (?P<ip>\S+): (?P<why>.*)")),
)
_OF_REMOTE: Final[tuple[_Shape, ...]] = (
    (
        "tls",
        re.compile(
            r"tls domain=(?P<domain>\S+) policy=(?P<policy>\S+) mx=(?P<mx>\S+) ip=(?P<ip>\S+)"
            r" session=(?P<session>\S+) result=(?P<result>\S+)"
        ),
    ),
    (
        "login",
        re.compile(
            r"login server=(?P<server>\S+) ip=(?P<ip>\S+) name=(?P<name>\S*) why=(?P<why>\S+) said=(?P<said>\S+)"
        ),
    ),
)  # fmt: skip
_SHAPES: Final[Mapping[str, tuple[_Shape, ...]]] = {
    "qm-remote": _OF_REMOTE,
    "ipcserver": _OF_IPCSERVER,
    "tcpserver": _OF_TCPSERVER,
    "checkpassword": _OF_CHECKPASSWORD,
    "qm-popup": _OF_CHECKPASSWORD,
}


class Entry(NamedTuple):
    program: str  # empty: a line of a stranger's program
    pid: int | None  # None: the line does not tell
    level: str  # info, warning, alert or fatal
    event: str
    fields: Mapping[str, Value]


def _typed(name: str, value: str) -> Value:
    if name in _NUMBERS or name.endswith("limit"):
        return int(value) if value.isdecimal() and len(value) < 19 else value
    if name == "seconds":
        try:
            return float(value)
        except ValueError:
            return value
    return _BOOLS.get(value, value) if name == "relay" else value


def _shaped(shapes: tuple[_Shape, ...], program: str, level: str, text: str) -> Entry | None:
    for event, pattern in shapes:
        found = pattern.fullmatch(text)
        if found is not None:
            fields = {name: _typed(name, value) for name, value in found.groupdict().items()}
            pid = fields.pop("pid", None)
            return Entry(program, int(pid) if pid is not None else None, level, event, fields)
    return None


def parse(line: bytes) -> Entry:
    """What *line*, without time and line end, says; any bytes are a line."""
    text = line.decode("ascii", "replace")
    entry = _shaped(_OF_SEND, SEND, "info", text)
    if entry is not None:
        return entry
    kind = _KIND.fullmatch(text)
    if kind is not None:
        return Entry(SEND, None, kind[1], "text", {"text": kind[2]})
    named = _NAMED.fullmatch(text)
    if named is None:
        return Entry("", None, "info", "text", {"text": text})
    program, rest = named.groups()
    session = _SESSION.fullmatch(rest)
    if session is not None:
        pairs = (word.partition("=") for word in session[3].split())
        fields = {name: _typed(name, value) for name, _, value in pairs}
        return Entry(program, int(session[1]), "info", session[2], fields)
    kind, level = _KIND.fullmatch(rest), "info"
    if kind is not None:
        level, rest = kind.groups()
    shaped = _shaped(_SHAPES.get(program, ()), program, level, rest)
    return shaped or Entry(program, None, level, "text", {"text": rest})


def label(time_ns: int) -> bytes:
    """The TAI64N label of a time since 1970: ``@`` and 24 hexadecimal digits."""
    return b"@%016x%08x" % (TAI_OFFSET_S + time_ns // 1_000_000_000, time_ns % 1_000_000_000)


def in_text(time_ns: int, line: bytes) -> bytes:
    """A line of a log directory, as multilog writes it."""
    return label(time_ns) + b" " + line


def in_json(time_ns: int, line: bytes) -> bytes:
    """The same as a JSON object, all ASCII."""
    return render(time_ns, parse(line)).encode("ascii")


def render(time_ns: int, entry: Entry) -> str:
    import json
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    known = {"program": entry.program, "pid": entry.pid, "level": entry.level, "event": entry.event}
    shown = {name: value for name, value in known.items() if value not in (None, "")}
    return json.dumps(
        {"time": f"{when}.{time_ns % 1_000_000_000:09d}Z", **shown, "fields": dict(entry.fields)},
        separators=(",", ":"),
    )


FORMATS: Final[Mapping[bytes, Callable[[int, bytes], bytes]]] = {b"qmail": in_text, b"json": in_json}


def read(line: bytes) -> tuple[int, Entry] | None:
    """Time in ns since 1970 and content of a line of a log directory, in either format; None if it is neither."""
    found = _LABEL.match(line)
    if found is not None:
        time_ns = (int(found[1], 16) - TAI_OFFSET_S) * 1_000_000_000 + int(found[2], 16)
        return time_ns, parse(line[found.end() :].rstrip(b"\n"))
    return _read_json(line) if line.startswith(b"{") else None


def _read_json(line: bytes) -> tuple[int, Entry] | None:
    import json
    from datetime import UTC, datetime

    try:
        told = json.loads(line)
        seconds = datetime.strptime(told["time"][:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        time_ns = int(seconds.timestamp()) * 1_000_000_000 + int(told["time"][20:29])
        fields = {str(name): value for name, value in told["fields"].items() if isinstance(value, Value)}
        pid = told.get("pid")
        words = (str(told.get(name, "")) for name in ("program", "level", "event"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    program, level, event = words
    return time_ns, Entry(program, pid if isinstance(pid, int) else None, level, event, fields)
