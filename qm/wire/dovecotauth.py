"""Dovecot's authentication protocol, its client's side: lines of fields with tabs between (Dovecot's auth-protocol).

Two sockets: one judges a password, the other knows who a user is.
"""

from base64 import b64encode
from typing import Final

from qm.wire.assign import ID_MAX
from qm.wire.record import Malformed, number
from qm.wire.userquery import Later, Login, LoginAnswer, Refused

LINE_MAX: Final = 8192
_WRONG: Final = Refused(b"wrong name or password")
_ESCAPES: Final = ((b"\x01", b"\x011"), (b"\t", b"\x01t"), (b"\r", b"\x01r"), (b"\n", b"\x01n"), (b"\0", b"\x010"))


def escaped(field: bytes) -> bytes:
    for raw, quoted in _ESCAPES:
        field = field.replace(raw, quoted)
    return field


def unescaped(field: bytes) -> bytes:
    for raw, quoted in reversed(_ESCAPES):
        field = field.replace(quoted, raw)
    return field


def is_name(name: bytes) -> bool:
    """Whether Dovecot would answer: it leaves a name with control bytes without a reply."""
    return bool(name) and not any(byte < 32 or byte == 127 for byte in name)


def password(pid: int, name: bytes, secret: bytes, address: bytes) -> bytes:
    """The question to auth-client."""
    where = b"\trip=" + escaped(address) if address else b""
    response = b64encode(b"\0" + name + b"\0" + secret)
    hello = b"VERSION\t1\t1\nCPID\t%d\n" % pid
    return hello + b"AUTH\t1\tPLAIN\tservice=qm\tsecured\tnologin%b\tresp=%b\n" % (where, response)


def judged(line: bytes) -> LoginAnswer | bytes | None:
    """The canonical name, or how it failed; None for a line that is no verdict.  Raises Malformed."""
    kind, *fields = line.split(b"\t")
    if kind not in (b"OK", b"FAIL", b"CONT") or fields[:1] != [b"1"]:
        return None
    if kind == b"CONT":
        raise Malformed("it wants more than a password")
    if kind == b"FAIL":
        return Later(b"Dovecot: temporary failure") if b"temp" in fields else _WRONG
    return _values(fields).get(b"user", b"")


def user(name: bytes) -> bytes:
    """The question to auth-userdb."""
    return b"VERSION\t1\t1\nUSER\t1\t%b\tservice=qm\n" % escaped(name)


def known(line: bytes) -> LoginAnswer | None:
    """Who the user is; None for a line that does not say.  Raises Malformed."""
    kind, *fields = line.split(b"\t")
    if kind == b"NOTFOUND":
        return _WRONG
    if kind == b"FAIL":
        return Later(b"Dovecot's userdb: temporary failure")
    if kind != b"USER" or len(fields) < 2:
        return None
    values = _values(fields[2:])
    uid, gid = (number(values.get(key, b""), ID_MAX) for key in (b"uid", b"gid"))
    if uid == 0 or not values.get(b"home"):
        raise Malformed("its userdb has uid 0, or no home")
    name = unescaped(fields[1])
    return Login(name, uid, gid, values[b"home"], b"/bin/sh", name)


def _values(fields: list[bytes]) -> dict[bytes, bytes]:
    return {key: unescaped(value) for key, _, value in (field.partition(b"=") for field in fields)}
