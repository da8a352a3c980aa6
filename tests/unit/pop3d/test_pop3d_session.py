"""A whole session after login: corpus files in, the bytes of the replies out."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm.disk import maildrop
from qm.pop3d.session import Session
from qm.unix.channel import Channel

CORPUS = Path(__file__).parents[2] / "corpus" / "pop3"
MESSAGES = {
    "cur/1700000001.Q0000000000000000001R0L0.h,S=41,W=46:2,S": b"Subject: one\n\n.dot\nfrom bare LF lines\n..\n",
    "new/1700000002.Q0000000000000000002R0L0.h,S=36,W=37": b"Subject: two\r\n\r\nCRLF line\nLF line\n.",
    "new/1700000003.3.h": b"Subject: three\n\n\xed\x95\x9c\xea\xb8\x80 \0 end\n",
}


def _fill(box: Path) -> None:
    for name in ("tmp", "new", "cur"):
        (box / name).mkdir()
    for path, text in MESSAGES.items():
        (box / path).write_bytes(text)


def _talk(box: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """The replies to *data* and the session's ending; descriptors 0 and 1 are played by files."""
    monkeypatch.chdir(box)
    (box / "in").write_bytes(data)
    fd_in = os.open("in", os.O_RDONLY)
    fd_out = os.open("out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        session = Session(Channel(fd_in, fd_out, 10), maildrop.Maildrop(), maildrop.lock())
        try:
            ending = session.run()
        finally:
            session.unlock()
        return (box / "out").read_bytes(), ending
    finally:
        os.close(fd_in)
        os.close(fd_out)


@pytest.mark.parametrize("case", sorted(path.stem for path in CORPUS.glob("*.in")))
def test_corpus(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client of each corpus file sends gets exactly the wanted bytes."""
    _fill(tmp_path)
    replies, _ = _talk(tmp_path, (CORPUS / f"{case}.in").read_bytes(), monkeypatch)
    assert replies == (CORPUS / f"{case}.want").read_bytes()


def test_sizes_are_those_of_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LIST and STAT tell what RETR sends, but for stuffed dots, the end, and what completes a last line."""
    _fill(tmp_path)
    replies, _ = _talk(tmp_path, b"LIST\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\n", monkeypatch)
    _, _, listing, *messages = replies.split(b"+OK")
    sizes = [int(line.split()[1]) for line in listing.split(b"\r\n")[1:4]]
    bodies = [message.removeprefix(b"\r\n").removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n") for message in messages]
    assert [len(body) - (2 if number == 1 else 0) for number, body in enumerate(bodies)] == sizes


def test_without_quit_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost after DELE leaves the mailbox as it was, new messages new."""
    _fill(tmp_path)
    _, ending = _talk(tmp_path, b"DELE 1\r\nDELE 2\r\nQUI", monkeypatch)
    assert ending == b"closed"
    assert all((tmp_path / path).exists() for path in MESSAGES)


def test_removal_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 1939 6: when a marked message cannot be removed, QUIT is answered -ERR."""
    _fill(tmp_path)
    unlink = os.unlink

    def fail(path: bytes) -> None:
        if b"three" not in path and b".3.h" in path:
            raise PermissionError(13, "Permission denied")
        unlink(path)

    monkeypatch.setattr(os, "unlink", fail)
    replies, ending = _talk(tmp_path, b"DELE 1\r\nDELE 3\r\nQUIT\r\n", monkeypatch)
    assert replies.endswith(b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
    assert ending == b"quit"
    assert not (tmp_path / "cur/1700000001.Q0000000000000000001R0L0.h,S=41,W=46:2,S").exists()


def test_a_message_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a message cannot be read to its end, the client gets no end either, and so does not take it for whole."""
    _fill(tmp_path)
    read = os.read
    calls = []

    def fail(fd: int, most: int) -> bytes:
        calls.append(most)
        if most == len(MESSAGES["new/1700000003.3.h"]):
            raise OSError(5, "Input/output error")
        return read(fd, most)

    monkeypatch.setattr(os, "read", fail)
    replies, ending = _talk(tmp_path, b"RETR 3\r\nSTAT\r\n", monkeypatch)
    assert ending == b"broken"
    assert not replies.endswith(b".\r\n")


def test_a_large_message_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies leave in pieces of bounded size, and together they are the message."""
    _fill(tmp_path)
    text = b"Subject: large\n\n" + b".123456789abcdef\n" * 500_000
    (tmp_path / "new/1700000009.9.h").write_bytes(text)
    pieces: list[int] = []
    write = Channel.write

    def measure(self: Channel, data: bytes | memoryview) -> None:
        pieces.append(len(data))
        write(self, data)

    monkeypatch.setattr(Channel, "write", measure)
    replies, _ = _talk(tmp_path, b"RETR 4\r\n", monkeypatch)
    assert replies.split(b"+OK\r\n", 1)[1] == text.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n") + b".\r\n"
    assert max(pieces) < 4 * maildrop.CHUNK


COMMANDS = (
    b"RETR 1",
    b"TOP 2 1",
    b"DELE 1",
    b"DELE 4",
    b"RSET",
    b"LIST",
    b"UIDL 3",
    b"STAT",
    b"LAST",
    b"RETR " + b"9" * 30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.sampled_from(COMMANDS), st.binary(max_size=20)), max_size=15))
def test_any_session_is_answered(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Whatever a client sends, the session ends in order and the answers are POP3."""
    box = tmp_path_factory.mktemp("box")
    _fill(box)
    with pytest.MonkeyPatch.context() as monkeypatch:
        replies, ending = _talk(box, b"\r\n".join(lines) + b"\r\nQUIT\r\n", monkeypatch)
    assert replies.startswith(b"+OK 3 messages\r\n")
    assert ending in (b"quit", b"closed")
    assert b"Traceback" not in replies
