"""The dialogues of tests/corpus/smtp and submission: NNN.in is what a client sends, NNN.want what becomes of it.

That is what the client hears, and what is queued.  In submission ann may log in, whose password is "secret".
"""

import re
from pathlib import Path

import pytest

from qm.wire.envelope import encode
from tests.unit.smtpd.double import ENV, RULES, Peer, Queue, Store, Users, submission, talk

CORPUS = Path(__file__).parents[2] / "corpus"
USERS = {b"nobody@b.example": (b"no", b"no such user")}


def transcript(pieces: list[bytes], folder: str) -> bytes:
    """Replies, then each queued message: our Received field, the envelope with a record on a line, and the text."""
    peer, queue = Peer(pieces), Queue()
    if folder == "smtp":
        talk(peer, queue, Users(USERS))
    else:
        rules, env = RULES._replace(authclear=True), {**ENV, b"SUBMISSION": b""}
        talk(peer, queue, Users(USERS), rules, env, means=submission(Store()))
    parts = [re.sub(rb"ok [0-9]+ id", b"ok N id", peer.heard).replace(b"\r\n", b"\n")]
    for trace, envelope, text in queue.queued:
        field = trace.head + b" id ID" + trace.tail + b"\n"
        parts += [b"== queued ==\n", field, encode(envelope).replace(b"\0", b"\n"), b"== text ==\n", text]
    return b"".join(parts)


PATHS = [*sorted(CORPUS.glob("smtp/*.in")), *sorted(CORPUS.glob("submission/*.in"))]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_dialogue(path: Path) -> None:
    """Each dialogue is answered and queued as it is written down, whole, byte by byte, and cut in two anywhere."""
    wire, want = path.read_bytes(), path.with_suffix(".want").read_bytes()
    folder = path.parent.name
    assert transcript([wire], folder) == want
    assert transcript([wire[at : at + 1] for at in range(len(wire))], folder) == want
    for at in range(1, len(wire)):
        assert transcript([wire[:at], wire[at:]], folder) == want
