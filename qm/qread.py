"""qread: list the messages that wait in the queue, with their recipients (qmail-qread).

Usage:   qm-qread [--json]
Reads:   queue/{held,new,cur,state}, control/{me,envnoathost,locals,percenthack,virtualdomains}
Env:     QMHOME
Writes:  fd 1
As:      root, the queue's group, or the owner of a private system
Exits:   0; 100 usage; 111 the queue cannot be read, or something in it is damaged
See:     qm-qread(8), qmail.md section 19

With --json a line is one message, as a JSON object; bytes that are no UTF-8 are \\xHH.
"""

import os
import re
import sys
from collections.abc import Iterator
from typing import Final

from qm import errors
from qm.disk import queue, queueview
from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.queueview import View
from qm.unix import log
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import date, route
from qm.wire.envelope import TLS_WORDS, tls_flag

NAME: Final = b"qm-qread"
_UNPRINTABLE: Final = re.compile(rb"[^ -~]")
_STATES: Final = {b"K": "delivered", b"Z": "deferred", b"D": "failed"}


def _printable(text: bytes) -> bytes:
    return _UNPRINTABLE.sub(b"_", text)


def is_bouncing(view: View) -> bool:
    """Whether somebody failed, and that has not been told yet."""
    return not view.has(b"B") and any(o is not None and o.letter == b"D" for o in view.latest())


def _plain(view: View, rules: route.Rules) -> Iterator[bytes]:
    """As qmail-qread has it (qmail.md 19)."""
    born = date.rfc5322(view.born_s)[5:-5] + b"GMT"
    marks = b" bouncing" if is_bouncing(view) else b""
    if view.folder == queue.HELD:
        marks += b" held"
    if view.envelope.requiretls:
        marks += b" requiretls"
    yield b"%b  #%b  %d  <%b> %b\n" % (born, view.id, view.size, _printable(view.envelope.sender), marks)
    for recipient, latest in zip(view.envelope.recipients, view.latest(), strict=True):
        where = route.route(rules, recipient.address)
        done = b"  done" if latest is not None and latest.letter != b"Z" else b""
        kind = b"local" if isinstance(where, route.Local) else b"remote"
        yield b"%b\t%b\t%b\n" % (done, kind, _printable(where.address))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _recipients(view: View, rules: route.Rules) -> Iterator[dict[str, str | int | None]]:
    for recipient, latest in zip(view.envelope.recipients, view.latest(), strict=True):
        where = route.route(rules, recipient.address)
        found: dict[str, str | int | None] = {
            "address": _text(recipient.address),
            "to": _text(where.address),
            "where": "local" if isinstance(where, route.Local) else "remote",
            "state": "waiting" if latest is None else _STATES[latest.letter],
        }
        if latest is not None:
            found["at"] = latest.at_s
            found["next"] = latest.next_s or None
            found |= {key: _text(getattr(latest, key)) for key in ("status", "mta", "diagnostic", "text")}
        yield found


def _json(view: View, rules: route.Rules) -> Iterator[bytes]:
    import json  # 5 ms, that only who wants it pays

    envelope = view.envelope
    shown = {
        "id": _text(view.id),
        "queue": os.path.basename(view.folder),
        "born": view.born_s,
        "size": view.size,
        "sender": _text(envelope.sender),
        "client": _text(envelope.client),
        "protocol": _text(envelope.protocol),
        "uid": envelope.uid,
        "held": _text(envelope.held) if view.folder == queue.HELD else "",
        "login": _text(envelope.login),
        "tls": TLS_WORDS.get(tls_flag(envelope), b"").decode(),
        "bouncing": is_bouncing(view),
        "recipients": list(_recipients(view, rules)),
    }
    yield json.dumps(shown).encode("ascii") + b"\n"


def _look(name: bytes) -> tuple[View | None, int]:
    """A message that waits, if it still does, and the exit code for it."""
    try:
        return queueview.look(name), errors.OK
    except Corrupt as error:
        log.warning(NAME, f"{name.decode()} is damaged: {error}")
    except OSError as error:
        log.warning(NAME, f"cannot read {name.decode()}: {error.strerror}")
    return None, errors.TEMPORARY


@program()
def main(argv: Argv, env: Env) -> int:
    if list(argv[1:]) not in ([], [b"--json"]):
        raise Usage("usage: qm-qread [--json]")
    show = _json if len(argv) > 1 else _plain
    rules = route.rules(Controls(route.CONTROLS))
    worst = errors.OK
    for name in queueview.all_ids():
        view, code = _look(name)
        worst = max(worst, code)
        if view is not None:
            sys.stdout.buffer.writelines(show(view, rules))
    sys.stdout.buffer.flush()
    return worst
