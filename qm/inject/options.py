"""What the caller of inject asks for: its command line and environment (qmail.md 16.1).

Nothing from here reaches a header or an envelope with a line end or a NUL byte in it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from qm.errors import Permanent
from qm.unix.options import parse
from qm.unix.program import Argv
from qm.wire import xtext
from qm.wire.rfc822 import one_line

USAGE: Final = "usage: qm-inject [-nNaAhH] [-fsender] [recipient ...]"

DROP_FROM: Final = b"f"
DROP_MESSAGE_ID: Final = b"i"
DROP_RETURN_PATH: Final = b"s"
NAME_AS_COMMENT: Final = b"c"
VERP: Final = b"r"  # an envelope sender for each recipient
VERP_MESSAGE: Final = b"m"  # one for each message

_CONDITIONS: Final = frozenset((b"SUCCESS", b"FAILURE", b"DELAY"))  # RFC 3461 4.1
_AMOUNTS: Final = frozenset((b"FULL", b"HDRS"))  # RFC 3461 4.3
_ENVID_MAX: Final = 100  # bytes; RFC 3461 4.4


class Who(NamedTuple):
    """Whom mail comes from, in the words of the environment; an empty host is the default."""

    user: bytes
    host: bytes
    name: bytes  # of the person; may be empty
    sender_user: bytes  # of the envelope
    sender_host: bytes


class Reports(NamedTuple):
    """What the sender wants to be told (RFC 3461); empty: nothing said."""

    notify: bytes = b""
    ret: bytes = b""
    envid: bytes = b""


class Options(NamedTuple):
    recipients: tuple[bytes, ...]  # of the command line
    from_header: bool  # and those that the header names
    print_only: bool
    sender: bytes | None  # -f
    letters: bytes  # of QMAILINJECT
    who: Who
    reports: Reports


def _first(env: Mapping[bytes, bytes], *names: bytes) -> bytes:
    """The first of these variables that is set to something."""
    return next((value for name in names if (value := env.get(name, b""))), b"")


def _word(env: Mapping[bytes, bytes], *names: bytes) -> bytes:
    """As `_first`, for a part of an address; raises Permanent for one with a line end."""
    value = _first(env, *names)
    if one_line(value) != value:
        raise Permanent(f"{names[0].decode()} or its like in the environment has a line end in it")
    return value


def _who(env: Mapping[bytes, bytes]) -> Who:
    user = _word(env, b"QMAILUSER", b"MAILUSER", b"USER", b"LOGNAME") or b"anonymous"
    host = _word(env, b"QMAILHOST", b"MAILHOST")
    name = one_line(_first(env, b"QMAILNAME", b"MAILNAME", b"NAME")).strip()
    return Who(user, host, name, _word(env, b"QMAILSUSER") or user, _word(env, b"QMAILSHOST") or host)


def _reports(env: Mapping[bytes, bytes]) -> Reports:
    notify, ret, envid = (env.get(name, b"") for name in (b"QMAILNOTIFY", b"QMAILRET", b"QMAILENVID"))
    words = notify.upper().split(b",")
    if notify and words != [b"NEVER"] and not (set(words) <= _CONDITIONS and len(set(words)) == len(words)):
        raise Permanent("NOTIFY must be never, or some of success, failure and delay with commas between")
    if ret and ret.upper() not in _AMOUNTS:
        raise Permanent("RET must be full or hdrs")
    if len(xtext.encode(envid)) > _ENVID_MAX:
        raise Permanent(f"ENVID is longer than {_ENVID_MAX} bytes")
    return Reports(notify.upper(), ret.upper(), xtext.encode(envid))


def _bare(address: bytes) -> bytes:
    """*address* without the brackets around it, which many callers write."""
    return address[1:-1] if address.startswith(b"<") and address.endswith(b">") else address


def options(argv: Argv, env: Mapping[bytes, bytes]) -> Options:
    """Raises Usage, and Permanent for a variable that cannot be used."""
    given, words = parse(argv[1:], USAGE, flags=b"nNaAhH", valued=b"f")
    letters = [letter for letter, _ in given]
    which = next((letter for letter in reversed(letters) if letter in b"aAhH"), b"A")
    printing = next((letter for letter in reversed(letters) if letter in b"nN"), b"N")
    senders = [_bare(argument) for letter, argument in given if letter == b"f"]
    return Options(
        recipients=() if which == b"h" else tuple(map(_bare, words)),
        from_header=which in b"hH" or (which == b"A" and not words),
        print_only=printing == b"n",
        sender=senders[-1] if senders else None,
        letters=env.get(b"QMAILINJECT", b""),
        who=_who(env),
        reports=_reports(env),
    )
