"""How programs that users run put a message into the queue; also if QMAILQUEUE is set.

They run in whatever directory their user is in.
"""

from collections.abc import Iterable

from qm.errors import Permanent
from qm.unix import entrance
from qm.unix.program import Env, home_from_here
from qm.unix.queueclient import Accepted
from qm.wire.envelope import Envelope

_UNFIT = (b"\r", b"\n", b"\0")


def _check(address: bytes) -> None:
    if any(byte in address for byte in _UNFIT):
        raise Permanent("an address has a line end or a NUL byte in it", status="1.3")


def post(env: Env, message: Iterable[bytes], envelope: Envelope) -> Accepted:
    """Queue the *message*, which comes in pieces; raises Temporary, Permanent.

    What the envelope says of 8-bit bytes and UTF-8 is found out here.
    """
    addresses = [envelope.sender, *(recipient.address for recipient in envelope.recipients)]
    for address in addresses:
        _check(address)
    ascii_only = True
    with entrance.queue(env, home_from_here(env)) as client:
        submission = client.begin()
        for piece in message:
            ascii_only = ascii_only and piece.isascii()
            submission.write(piece)
        return submission.commit(
            envelope._replace(eight_bit=not ascii_only, smtputf8=not all(map(bytes.isascii, addresses)))
        )
