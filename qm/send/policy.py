"""send's decisions: VERP senders, who gets the bounce, what a deferral means at the end of a message's life.  Pure."""

import re
from typing import Final, NamedTuple

from qm.wire.envelope import Recipient

VERP_SUFFIX: Final = b"-@[]"
DOUBLE: Final = b"#@[]"  # the sender of a double bounce
TOO_LONG: Final = b"I'm not going to try again; this message has been in the queue too long."
_UNPRINTABLE: Final = re.compile(rb"[^!-$&-~\n]")


def printable(text: bytes) -> bytes:
    """*text* for a log line, as qmail.md 7.9: LF as ``/``; blanks, unprintables and ``%`` as ``_``."""
    return _UNPRINTABLE.sub(b"_", text).replace(b"\n", b"/")


def is_verp(sender: bytes) -> bool:
    """Whether each recipient sees a sender of its own."""
    return sender.endswith(VERP_SUFFIX) and b"@" in sender[: -len(VERP_SUFFIX)]


def delivery_sender(sender: bytes, recipient: bytes) -> bytes:
    """The envelope sender for one *recipient*: VERP is expanded here (qmail.md 7.7)."""
    if not is_verp(sender) or b"@" not in recipient:
        return sender
    local, _, host = sender[: -len(VERP_SUFFIX)].rpartition(b"@")
    to_local, _, to_host = recipient.rpartition(b"@")
    return local + to_local + b"=" + to_host + b"@" + host


class BounceRoute(NamedTuple):
    sender: bytes
    recipient: bytes
    double: bool


def bounce_route(sender: bytes, double_bounce_to: bytes) -> BounceRoute | None:
    """Whom a failure of a message from *sender* is told; None: nobody, it was itself about a bounce (qmail.md 7.11)."""
    if sender.endswith(VERP_SUFFIX) and sender != DOUBLE:
        sender = sender[: -len(VERP_SUFFIX)]
    if sender == DOUBLE:
        return None
    if sender:
        return BounceRoute(b"", sender, False)
    return BounceRoute(DOUBLE, double_bounce_to, True)


def wants_failure(recipient: Recipient) -> bool:
    """RFC 3461 4.1: without NOTIFY, failures are told."""
    return not recipient.notify or b"FAILURE" in recipient.notify.upper()


def wants_success(recipient: Recipient) -> bool:
    return b"SUCCESS" in recipient.notify.upper()


def wants_delay(recipient: Recipient) -> bool:
    """RFC 3461 4.1: without NOTIFY it is ours to choose, and we tell."""
    return not recipient.notify or b"DELAY" in recipient.notify.upper()


def is_dying(born_s: int, started_s: int, lifetime_s: int) -> bool:
    """Whether a try that began at *started_s* is the message's last."""
    return started_s > born_s + lifetime_s


def final_text(text: bytes) -> bytes:
    """A deferral's text when it was the last one (qmail.md 7.8)."""
    return text.rstrip(b"\n") + b"\n" + TOO_LONG + b"\n"
