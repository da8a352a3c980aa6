"""The dialogues of tests/corpus/smtp: NNN.in is what a client sends, NNN.want what it hears and what is queued."""

import re
from pathlib import Path

import pytest

from qm.wire.envelope import encode
from tests.unit.smtpd.double import Peer, Queue, Users, talk

CORPUS = Path(__file__).parents[2] / "corpus" / "smtp"
USERS = {b"nobody@b.example": (b"no", b"no such user")}


def transcript(pieces: list[bytes]) -> bytes:
    """Replies, then each queued message: our Received field, the envelope with a record on a line, and the text."""
    peer, queue = Peer(pieces), Queue()
    talk(peer, queue, Users(USERS))
    parts = [re.sub(rb"ok [0-9]+ id", b"ok N id", peer.heard).replace(b"\r\n", b"\n")]
    for trace, envelope, text in queue.queued:
        field = trace.head + b" id ID" + trace.tail + b"\n"
        parts += [b"== queued ==\n", field, encode(envelope).replace(b"\0", b"\n"), b"== text ==\n", text]
    return b"".join(parts)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.in")), ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    """Each dialogue is answered and queued as it is written down, whole, byte by byte, and cut in two anywhere."""
    wire, want = path.read_bytes(), path.with_suffix(".want").read_bytes()
    assert transcript([wire]) == want
    assert transcript([wire[at : at + 1] for at in range(len(wire))]) == want
    for at in range(1, len(wire)):
        assert transcript([wire[:at], wire[at:]]) == want
