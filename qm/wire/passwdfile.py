r"""users/passwd: who may log in, a line each, and the values of users/passwd.cdb that it is compiled to.

    name:secrets:user:uid:gid:home:shell

qm.wire.storedsecret says what secrets are; one hash is the least.

Names count without regard to ASCII case and may be ``user@domain``.  In every field ``\:`` is a colon, ``\\`` a
backslash and ``\n`` a line end.  Empty lines and lines that begin with # are skipped.  The cdb has the name in lower
case as key, and the other six fields, NUL between them, as value.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.wire import storedsecret
from qm.wire.assign import ID_MAX, BadLine
from qm.wire.record import Malformed, number
from qm.wire.storedsecret import Secrets
from qm.wire.userquery import Login

NAME_MAX: Final = 255  # bytes
_NAME: Final = re.compile(rb"[^\x00-\x20\x7f:\\#][^\x00-\x20\x7f:\\]*")
_QUOTED: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(rb"[\\:\n]")
_FIELD: Final = re.compile(rb"((?:[^\\:]|\\.)*)(:|\Z)", re.DOTALL)


class Entry(NamedTuple):
    name: bytes  # in lower case
    secrets: Secrets
    login: Login

    def __repr__(self) -> str:
        return f"Entry({self.name!r})"


def canonical(name: bytes) -> bytes | None:
    """*name* as it is stored and looked up; None if nobody can be called so."""
    return name.lower() if len(name) <= NAME_MAX and _NAME.fullmatch(name) else None


def _fields(line: bytes) -> list[bytes]:
    """The fields of a line, unquoted; a backslash at its end stands for nothing, and makes one field too few."""
    fields = []
    position = 0
    while match := _FIELD.match(line, position):
        fields.append(_QUOTED.sub(lambda quoted: b"\n" if quoted[1] == b"n" else quoted[1], match[1]))
        if not match[2]:
            return fields
        position = match.end()
    return []


def _entry(line: bytes) -> Entry:
    fields = _fields(line)
    if len(fields) != 7:
        raise Malformed("not name:hash:user:uid:gid:home:shell")
    name = canonical(fields[0])
    if name is None:
        raise Malformed("not a name")
    return decode(name, b"\0".join(fields[1:]))


def decode(name: bytes, value: bytes) -> Entry:
    """The entry of a cdb value; raises Malformed."""
    fields = value.split(b"\0")
    if len(fields) != 6:
        raise Malformed("a NUL byte or not six fields")
    secrets, user, uid, gid, home, shell = fields
    try:
        login = Login(user, number(uid, ID_MAX), number(gid, ID_MAX), home, shell)
    except Malformed as error:
        raise Malformed("uid or gid is not a number") from error
    if login.uid == 0:
        raise Malformed("uid 0: nobody logs in as root")
    if not user or not home:
        raise Malformed("user or home is empty")
    return Entry(name, storedsecret.parse(secrets), login)


def encode(entry: Entry) -> bytes:
    """The cdb value of *entry*."""
    user, uid, gid, home, shell, *_ = entry.login
    return b"\0".join((storedsecret.text(entry.secrets), user, b"%d" % uid, b"%d" % gid, home, shell))


def line(entry: Entry) -> bytes:
    """The line of *entry*, without its end."""
    fields = (entry.name, *encode(entry).split(b"\0"))
    return b":".join(_SPECIAL.sub(_quoted, field) for field in fields)


def _quoted(special: re.Match[bytes]) -> bytes:
    return b"\\n" if special[0] == b"\n" else b"\\" + special[0]


def _lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    for count, content in enumerate(text.split(b"\n"), 1):
        if content.strip() and not content.startswith(b"#"):
            yield count, content


def parse(text: bytes) -> dict[bytes, tuple[int, Entry]]:
    """The entries by name, with their lines; raises BadLine, also for a name that comes twice."""
    entries: dict[bytes, tuple[int, Entry]] = {}
    for count, content in _lines(text):
        try:
            entry = _entry(content)
        except Malformed as error:
            raise BadLine(count, str(error)) from error
        if entry.name in entries:
            raise BadLine(count, f"the name of line {entries[entry.name][0]} again")
        entries[entry.name] = count, entry
    return entries
