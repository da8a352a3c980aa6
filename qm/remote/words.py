"""What is said about a delivery, and how an address is written for a server.  Pure.

The sentences are qmail's where it has one: log analysers know them (qmail.md 14.4).
"""

from typing import Final, NamedTuple

from qm.errors import Permanent
from qm.remote.policy import ascii_name, shown
from qm.wire import address
from qm.wire.delivery import Result
from qm.wire.replies import Reply

DOUBLE_BOUNCE: Final = b"#@[]"  # the sender of qmail's double bounces
_CLASS: Final = {b"K": b"2", b"Z": b"4", b"D": b"5"}


class Peer(NamedTuple):
    """Who answers."""

    name: bytes  # as DNS or the user called it
    address: bytes
    tls: bytes = b""  # version, cipher and who wanted it so; empty: in clear


def failure(letter: bytes, text: bytes, status: bytes, peer: Peer | None = None) -> Result:
    """A result that is our own finding; *text* is a sentence or two."""
    return Result(letter, b"%b (#%b)\n" % (text, status), status, mta=peer.name if peer else b"")


def answered(letter: bytes, peer: Peer, saying: bytes, reply: Reply, *, dsn: bool = False) -> Result:
    """A result that *reply* has decided; *saying* has a %b for the peer's address."""
    text = b"%b\nRemote host said: %b" % (saying % peer.address, reply.text())
    if letter == b"K":
        text += b"The connection had %b.\n" % peer.tls if peer.tls else b""
    else:
        text += b"Giving up on %b.\n" % peer.address
    status = reply.status()
    if status[:1] != _CLASS[letter]:
        status = _CLASS[letter] + b".0.0"
    return Result(letter, text, status, peer.name, reply.one_line(), dsn)


def path(mailbox: bytes, *, smtputf8: bool) -> bytes:
    """What stands between < and >; raises Permanent for an address that cannot stand there.

    Nothing in it can end the command or begin a parameter.  Without SMTPUTF8 the domain goes as A-labels.
    """
    if not mailbox or mailbox == DOUBLE_BOUNCE:
        return b""  # RFC 5321 4.5.5
    local, at, domain = mailbox.rpartition(b"@")
    if at and not smtputf8 and not domain.isascii():
        mailbox = local + at + ascii_name(domain).encode()
    quoted = address.quote(mailbox)
    if address.parse(quoted) is None:
        raise Permanent(f"{shown(mailbox)} is not an address that can be sent by SMTP.", status="1.3")
    return quoted
