"""What popup's privileged half tells the other: what to say to whom, and how this client may log in."""

from typing import Final, NamedTuple, Self

from qm.wire.pop3auth import Offer
from qm.wire.record import number, pack, unpack
from qm.wire.sasl import Peer
from qm.wire.tlsjob import read_bindings, show_bindings

_NUMBER_MAX: Final = 1 << 62


class Talk(NamedTuple):
    line: bytes  # the greeting, or why the last attempt to log in failed; b"" after STLS: nothing
    after: bytes  # if not b"", *line* is a challenge, and this the answer to the client's next line
    delay_s: int  # before it
    last: bool  # and after it hang up
    banner: bytes  # <...>, APOP's timestamp
    offer: Offer
    peer: Peer
    errors_max: int
    deadline_s: int  # of the monotonic clock
    encrypted: bool

    def pack(self) -> bytes:
        apop, stls, forced, mechanisms = self.offer
        peer = self.peer
        numbers = (self.delay_s, self.last, self.errors_max, self.deadline_s, self.encrypted, apop, stls, forced)
        return pack(
            *(self.line, self.after, self.banner, b" ".join(mechanisms)),
            *(peer.address, peer.host, peer.nonce, show_bindings(tuple(peer.bindings.items())), peer.client),
            *(b"%d" % value for value in numbers),
        )

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        """Raises Malformed."""
        line, after, banner, words, address, host, nonce, bindings, client, *numbers = unpack(record, 17)
        delay_s, last, errors_max, deadline_s, encrypted, apop, stls, forced = (
            number(field, _NUMBER_MAX) for field in numbers
        )
        offer = Offer(apop > 0, stls > 0, forced > 0, tuple(words.split()))
        peer = Peer(address, host, nonce, offer.mechanisms, dict(read_bindings(bindings)), client)
        return cls(line, after, delay_s, last > 0, banner, offer, peer, errors_max, deadline_s, encrypted > 0)
