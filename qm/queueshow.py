"""queue-show: print a message's envelope, what has happened to it, when it is tried next, and why it waits.

Usage:   qm-queue-show ID
Reads:   queue/{held,new,cur,bad,state}, control/{me,concurrencylocal,concurrencyremote,envnoathost,locals,percenthack,
         queuelifetime,virtualdomains}
Env:     QMHOME
Writes:  fd 1
As:      root, the queue's group, or the owner of a private system
Exits:   0; 100 usage, or there is no such message; 111 it cannot be read, or is damaged
See:     qm-queue-show(8), qm-queue(5)
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import Final

from qm import errors
from qm.disk import queue, queueview
from qm.disk.control import Controls
from qm.disk.queuefile import Corrupt
from qm.disk.queueview import View
from qm.disk.state import Outcome
from qm.unix.log import clean
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import date, queueid, route

CONTROLS: Final = (*route.CONTROLS, "concurrencylocal", "concurrencyremote", "queuelifetime")
_WORDS: Final = {
    b"K": "delivered", b"Z": "deferred", b"D": "failed", b"B": "its report is queued", b"W": "its warning is queued",
}  # fmt: skip
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def _shown(text: bytes) -> str:
    """A stranger's text on one line."""
    return clean(text.rstrip(b"\n").replace(b"\n", b" / ")).decode("ascii")


def _span(seconds: int) -> str:
    """``2 h 5 min``; what is under a minute in seconds."""
    words = []
    for unit_s, unit in _UNITS:
        count, seconds = divmod(seconds, unit_s)
        words += [f"{count} {unit}"] if count else []
    return " ".join(words[:2]) or f"{seconds} s"


def _moment(at_s: int, now_s: int) -> str:
    span = _span(abs(at_s - now_s))
    return f"{date.rfc5322(at_s).decode()} ({f'in {span}' if at_s > now_s else f'{span} ago'})"


def _envelope(view: View, now_s: int, lifetime_s: int) -> Iterator[str]:
    envelope = view.envelope
    yield f"message {view.id.decode()} in {view.folder}, {view.size} bytes"
    yield f"sender: <{_shown(envelope.sender)}>"
    client = f" from {_shown(envelope.client)}" if envelope.client else ""
    yield f"came by {_shown(envelope.protocol)}{client}, uid {envelope.uid}, pid {envelope.pid}"
    if envelope.held:
        yield f"held for: {_shown(envelope.login)}, by control/{_shown(envelope.held)}"
    yield f"born: {_moment(view.born_s, now_s)}"
    yield f"last try after: {_moment(view.born_s + lifetime_s, now_s)}"
    said = {
        "8BITMIME": envelope.eight_bit,
        "SMTPUTF8": envelope.smtputf8,
        "REQUIRETLS": envelope.requiretls,
        "TLS-Required:No": envelope.tlsoptional,
    }
    asked = [word for word, given in said.items() if given]
    asked += [f"{key}={_shown(value)}" for key, value in (("RET", envelope.ret), ("ENVID", envelope.envid)) if value]
    if asked:
        yield f"asked for: {' '.join(asked)}"


def _recipients(view: View, rules: route.Rules, now_s: int) -> Iterator[str]:
    for index, (recipient, latest) in enumerate(zip(view.envelope.recipients, view.latest(), strict=True)):
        where = route.route(rules, recipient.address)
        kind = "local" if isinstance(where, route.Local) else "remote"
        yield f"recipient {index}: <{_shown(recipient.address)}>"
        yield f"    {kind} <{_shown(where.address)}>, by {_shown(where.why)}"
        asked = (("NOTIFY", recipient.notify), ("ORCPT", recipient.orcpt))
        if recipient.notify or recipient.orcpt:
            yield "    " + " ".join(f"{key}={_shown(value)}" for key, value in asked if value)
        yield f"    {_standing(latest, now_s)}"


def _standing(latest: Outcome | None, now_s: int) -> str:
    if latest is None:
        return "no try has ended yet"
    if latest.letter != b"Z":
        return f"{_WORDS[latest.letter]}: {_shown(latest.text)}"
    return f"next try: {_moment(latest.next_s, now_s)}; the last said: {_shown(latest.text)}"


def _history(view: View) -> Iterator[str]:
    for outcome in view.history:
        at = date.rfc5322(outcome.at_s)[5:-6].decode()
        if outcome.letter in (b"B", b"W"):
            yield f"  {at}: {_WORDS[outcome.letter]}"
            continue
        words = [at, f"recipient {outcome.recipient} {_WORDS[outcome.letter]}"]
        words += [_shown(word) for word in (outcome.status, outcome.mta) if word]
        words += ["its host reports success"] if outcome.relayed else []
        yield f"  {', '.join(words)}: {_shown(outcome.diagnostic or outcome.text)}"


def why(view: View, rules: route.Rules, controls: Controls, now_s: int, *, served: bool) -> Iterator[str]:
    """Why it is still here, a line each."""
    if view.folder == queue.BAD:
        yield "it is damaged: kept, and never delivered"
        return
    if view.folder == queue.HELD:
        yield f"it is held, since its login had reached control/{_shown(view.envelope.held)}; qm hold lets it go"
        return
    if not served:
        yield "qm-send is not running"
        return
    if view.folder == queue.NEW:
        yield "qm-send has not taken it up yet"
        return
    waiting = [
        (latest, "local" if isinstance(route.route(rules, recipient.address), route.Local) else "remote")
        for recipient, latest in zip(view.envelope.recipients, view.latest(), strict=True)
        if latest is None or latest.letter == b"Z"
    ]
    if not waiting:
        yield "all recipients are settled; the report to its sender could not be queued yet, or it is just going"
    for kind in ("local", "remote"):
        if any(where == kind for _, where in waiting) and not controls.number(f"concurrency{kind}"):
            yield f"control/concurrency{kind} is 0: all {kind} deliveries are held"
    yield from _counts([latest for latest, _ in waiting], now_s)


def _counts(waiting: list[Outcome | None], now_s: int) -> Iterator[str]:
    fresh = sum(latest is None for latest in waiting)
    due_s = [latest.next_s for latest in waiting if latest is not None]
    late = sum(next_s <= now_s for next_s in due_s)
    if fresh:
        yield f"{fresh} of its recipients: being delivered just now, or waiting for their turn"
    if late:
        yield f"{late} of its recipients: due, and being delivered just now or waiting for their turn"
    if len(due_s) > late:
        first_s = min(next_s for next_s in due_s if next_s > now_s)
        yield f"{len(due_s) - late} of its recipients: deferred; the next try is {_moment(first_s, now_s)}"


def _lines(view: View) -> Iterator[str]:
    controls = Controls(CONTROLS)
    rules = route.rules(controls)
    now_s = int(time.time())
    yield from _envelope(view, now_s, controls.number("queuelifetime"))
    yield from _recipients(view, rules, now_s)
    if view.history:
        yield "history:"
        yield from _history(view)
    yield "why it waits:"
    for line in why(view, rules, controls, now_s, served=queueview.is_served()):
        yield f"  {line}"


@program()
def main(argv: Argv, env: Env) -> int:
    name = argv[1].removeprefix(b"#") if len(argv) == 2 else b""
    if not queueid.valid(name):
        raise Usage("usage: qm-queue-show ID")
    try:
        view = queueview.look(name, (queue.HELD, queue.NEW, queue.CUR, queue.BAD))
    except Corrupt as error:
        raise errors.Temporary("the message is damaged", detail=f"{name.decode()}: {error}") from error
    except OSError as error:
        detail = f"{os.fsdecode(error.filename or name)}: {error.strerror}"
        raise errors.Temporary("cannot read the queue", detail=detail) from error
    if view is None:
        raise errors.Permanent("no such message in the queue", detail=f"{name.decode()}; the log tells how it ended")
    sys.stdout.writelines(f"{line}\n" for line in _lines(view))
    return errors.OK
