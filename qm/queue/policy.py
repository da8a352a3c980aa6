"""Who may ask the queue for what, and how our Received field speaks of him (qmail.md section 5).

Anybody on this machine may queue a message.  smtpd and the queue's owner are believed when they say where it came from;
only send and the owner may say which ID it shall have.
"""

from collections.abc import Mapping
from typing import NamedTuple

from qm.wire.door import Begin
from qm.wire.envelope import Envelope


class Rules(NamedTuple):
    tracing: frozenset[int]  # uids whose head and tail of the Received field are used
    naming: frozenset[int]  # uids that may ask for an ID
    words: Mapping[int, bytes]  # who a uid is, where that says more than its number


def rules(owner: int, alias: int, qmaild: int, qmails: int) -> Rules:
    """The rules for these uids; in a private system they are all one, and the number says enough."""
    words = {} if qmaild == owner else {alias: b"by alias", qmaild: b"from network", qmails: b"for bounce"}
    return Rules(frozenset((owner, qmaild)), frozenset((owner, qmails)), words)


def may_begin(known: Rules, uid: int, start: Begin) -> bool:
    return not start.name or uid in known.naming


def received(known: Rules, uid: int, start: Begin, name: bytes, date: bytes) -> bytes:
    """Our Received field for the message *name*; *date* as RFC 5322 3.3 has it."""
    if start.head and uid in known.tracing:
        return b"%b\n  id %b%b; %b\n" % (start.head, name, start.tail, date)
    who = b"for bounce" if start.name else known.words.get(uid, b"by uid %d" % uid)
    # RFC 5321 4.4 asks for from and by in SMTP only; what is between parentheses is for humans
    return b"Received: (qm-queue invoked %b)\n  id %b; %b\n" % (who, name, date)


def honest(known: Rules, uid: int, envelope: Envelope) -> Envelope:
    """*envelope* with nothing in it that *uid* may not claim."""
    return envelope if uid in known.tracing else envelope._replace(client=b"", protocol=b"local", held=b"", login=b"")
