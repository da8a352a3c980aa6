"""What stands in the files of a qmail queue besides the message (qmail.md section 4)."""

from typing import NamedTuple

from qm.wire.envelope import Recipient
from qm.wire.record import Malformed
from qm.wire.route import Rules, route


class Mail(NamedTuple):
    sender: bytes
    recipients: tuple[Recipient, ...]  # that have not got it yet
    done: int  # those that have


def _records(text: bytes) -> list[bytes]:
    if text and not text.endswith(b"\0"):
        raise Malformed("a record without its NUL")
    return text.split(b"\0")[:-1]


def channel(text: bytes) -> tuple[list[bytes], int]:
    """Of a file of local/ or remote/: who has not got the message, and how many have; raises Malformed."""
    waiting, done = [], 0
    for record in _records(text):
        if record[:1] not in (b"T", b"D"):
            raise Malformed("a record that is neither T nor D")
        if record[:1] == b"D":
            done += 1
        else:
            waiting.append(record[1:])
    return waiting, done


def sender(text: bytes) -> bytes:
    """Of a file of info/."""
    records = _records(text)
    if len(records) != 1 or not records[0].startswith(b"F"):
        raise Malformed("info/ has no sender")
    return records[0][1:]


def todo(text: bytes) -> Mail:
    """Of a file of todo/, which qmail-send has not looked at yet: nobody has got the message."""
    found, waiting = None, []
    for record in _records(text):
        if record.startswith(b"F"):
            found = record[1:]
        elif record.startswith(b"T"):
            waiting.append(Recipient(record[1:]))
        elif record[:1] not in (b"u", b"p"):
            raise Malformed("a record that is not known")
    if found is None:
        raise Malformed("todo/ has no sender")
    return Mail(found, tuple(waiting), 0)


def without_prefix(rules: Rules, address: bytes) -> bytes:
    """A local *address* as it was before qmail-send, by these *rules* of its own, put a virtual domain's user first."""
    for user in set(rules.virtualdomains.values()):
        bare = address.removeprefix(user + b"-")
        if user and bare != address and route(rules, bare).address == address:
            return bare
    return address
