"""What it means that nobody of a destination served us.  Pure.

It is for ever only if every address was tried, reached, and said so with 5xx: one server that turns us away is not the
destination's last word while another one was silent or busy.  A relay that turns us away is a matter between us and it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.remote.words import Peer, answered, failure
from qm.wire.delivery import Health, Result
from qm.wire.replies import Reply

TOLD_MAX: Final = 5  # addresses that a text names


class Miss(NamedTuple):
    """An address that was tried in vain."""

    peer: Peer
    saying: bytes  # reached: a sentence with a %b for the address; else a reason
    reply: Reply | None
    reached: bool
    status: bytes = b"4.4.2"  # where there is no reply


def unserved(
    misses: Sequence[Miss], addresses: int, *, relay: bool, protocol: bytes = b"SMTP"
) -> tuple[Result, Health]:
    """The result for every recipient; those of the *addresses* that are no miss have timed out lately."""
    reached = [miss for miss in misses if miss.reached]
    if not reached:
        return _dead(misses, protocol), Health.DEAD
    refusals = [miss for miss in misses if miss.reply is not None and miss.reply.permanent]
    letter = b"D" if len(refusals) == addresses and not relay else b"Z"
    told = next((miss for miss in reached if miss.reply is not None), reached[-1])
    if told.reply is None:
        return failure(b"Z", told.saying % told.peer.address, told.status, told.peer), Health.BUSY
    return answered(letter, told.peer, told.saying, told.reply), Health.BUSY


def _dead(misses: Sequence[Miss], protocol: bytes) -> Result:
    if not misses:
        return failure(b"Z", b"All addresses of that host have timed out lately; I didn't try them again.", b"4.4.1")
    tried = b", ".join(b"%b: %b" % (miss.peer.address, miss.saying) for miss in misses[:TOLD_MAX])
    text = b"Sorry, I wasn't able to establish an %b connection (%b)." % (protocol, tried)
    return failure(b"Z", text, b"4.4.1", misses[-1].peer)
