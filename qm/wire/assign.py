"""users/assign, and the values of users/cdb that it is compiled to (qmail.md 12.2, 12.3).

A line is ``=local:user:uid:gid:home:dash:ext:`` for one local part or ``+prefix:user:uid:gid:home:dash:pre:`` for all
that begin with the prefix; what follows the last colon is ignored.  A line that begins with a dot ends the file; lines
that begin with # are skipped.

In the cdb the keys are ``!local\\0`` and ``!prefix``, in lower case; key "" has the last characters of all prefixes.
"""

from typing import Final, NamedTuple

from qm.wire.record import Malformed, number

ID_MAX: Final = 2**32 - 2  # (uid_t) -1 means "no change" to the kernel


class User(NamedTuple):
    """Who gets the mail of a local part, and under which extension (qmail.md 12)."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes


class BadLine(ValueError):
    """A line that cannot be compiled; *line* counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"{line}: {why}")


class Compiled(NamedTuple):
    entries: list[tuple[bytes, bytes]]  # in the order in which the cdb must have them
    warnings: list[str]  # ``LINE: why``: lines that mean less than they seem to


def decode(data: bytes) -> User:
    """The user that a cdb value names; raises Malformed."""
    fields = data.split(b"\0")
    if len(fields) != 6:
        raise Malformed("not six fields")
    user, uid, gid, home, dash, ext = fields
    return User(user, number(uid, ID_MAX), number(gid, ID_MAX), home, dash, ext)


def _entry(count: int, line: bytes) -> tuple[bytes, bytes]:
    address, *fields = line.split(b":", 7)
    if line[:1] == b":":
        raise BadLine(count, "nothing before the first colon")
    if line[:1] not in (b"=", b"+"):
        raise BadLine(count, "begins with none of = + # and the dot")
    if b"\0" in line:
        raise BadLine(count, "NUL byte")
    if len(fields) < 7:
        raise BadLine(count, f"{len(fields)} colons where 7 belong")
    data = b"\0".join(fields[:6])
    try:
        user = decode(data)
    except Malformed as error:
        raise BadLine(count, "uid or gid is not a number") from error
    if user.uid == 0:
        raise BadLine(count, "uid 0: no mail is delivered as root")
    key = b"!" + address[1:].lower()
    return (key + b"\0" if line[:1] == b"=" else key), data


def compile_lines(text: bytes) -> Compiled:
    """What users/cdb must hold for users/assign being *text*; raises BadLine."""
    entries: list[tuple[bytes, bytes]] = []
    warnings: list[str] = []
    wildcards = b""
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    for count, line in enumerate(lines, 1):
        if line[:1] == b".":
            return Compiled([*entries, (b"", wildcards)], warnings)
        if line[:1] == b"#":
            continue
        entries.append(_entry(count, line))
        prefix = line.split(b":", 1)[0]
        if prefix[:1] == b"+" and len(prefix) > 1:
            if prefix[-1:].isupper():
                warnings.append(f"{count}: a prefix that ends in a capital letter never matches; write it small")
            if prefix[-1:] not in wildcards:
                wildcards += prefix[-1:]
    raise BadLine(len(lines) + 1, "the file must end with a line that begins with a dot")
