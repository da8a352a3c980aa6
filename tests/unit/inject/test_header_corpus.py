"""inject on a message: tests/corpus/header has the table of cases of qmail.md 16.1.

NNN.in is ``# what it shows``, ``argv`` with the options and recipients, ``env NAME=value`` lines (``\\n`` and ``\\r``
stand for line ends), ``list`` with an address of QMAILMFTFILE, a line ``---``, and the message.  NNN.want is the
envelope and the message that is queued, or why it is refused.
"""

import random
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest

from qm.errors import Permanent
from qm.inject.options import options
from qm.inject.policy import Composer, Mail, Moment
from qm.wire.qualify import hosts
from qm.wire.rfc822 import HeaderReader, lines_ended

CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "header").glob("*.in"))
MOMENT = Moment(1795496436, 4711)  # 24 Nov 2026 05:00:36


class Names:
    """Control files that say their own name."""

    def present(self, name: str) -> bool:
        return True

    def line(self, name: str) -> bytes:
        return b"host" if name == "defaulthost" else name.encode() + b".example"


class Case:
    def __init__(self, text: bytes) -> None:
        head, _, self.message = text.partition(b"\n---\n")
        self.argv = [b"qm-inject"]
        self.env: dict[bytes, bytes] = {}
        self.lists: set[bytes] = set()
        for line in head.split(b"\n")[1:]:
            word, _, rest = line.replace(b"\\n", b"\n").replace(b"\\r", b"\r").partition(b" ")
            if word == b"env":
                name, _, value = rest.partition(b"=")
                self.env[name] = value
            elif word == b"list":
                self.lists.add(rest.lower())
            else:
                self.argv += rest.split(b" ") if rest else []

    def run(self, pieces: Iterable[bytes]) -> bytes:
        try:
            return self._run(pieces)
        except Permanent as error:
            return b"refused: " + str(error).encode() + b"\n"

    def _run(self, pieces: Iterable[bytes]) -> bytes:
        composer = Composer(options(self.argv, self.env), hosts(Names(), self.env), frozenset(self.lists), MOMENT)
        message = lines_ended(pieces)
        reader = HeaderReader()
        for piece in message:
            if reader.feed(piece):
                break
        reader.end()
        mail = composer.mail(reader.fields)
        return b"".join(chain([_envelope(mail), mail.header, reader.body], message))


def _envelope(mail: Mail) -> bytes:
    lines = [b"from <" + mail.envelope.sender + b">"]
    for recipient in mail.envelope.recipients:
        lines.append(b"to <" + recipient.address + b">" + (b" " + recipient.notify if recipient.notify else b""))
    lines += [b"ret " + mail.envelope.ret + b" envid " + mail.envelope.envid] if mail.envelope.ret else []
    lines += [b"warning: " + complaint.encode() for complaint in mail.complaints]
    return b"\n".join([*lines, b"---", b""])


@pytest.fixture(params=CORPUS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_corpus(path: Path) -> None:
    """Each message becomes what stands beside it."""
    case = Case(path.read_bytes())
    assert case.run([case.message]) == path.with_suffix(".want").read_bytes()


def test_corpus_in_pieces(path: Path) -> None:
    """It does so however it comes: byte by byte, and cut at random."""
    case = Case(path.read_bytes())
    want = path.with_suffix(".want").read_bytes()
    text = case.message
    assert case.run(text[i : i + 1] for i in range(len(text))) == want
    chance = random.Random(path.stem)
    for _ in range(20):
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(3))
        assert case.run(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b) == want


def test_the_corpus_is_there() -> None:
    """A corpus that nobody finds tests nothing."""
    assert len(CORPUS) >= 130
