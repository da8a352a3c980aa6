"""How programs of users put a message into the queue."""

import os
from pathlib import Path

import pytest

from qm.errors import Permanent, Temporary
from qm.unix import entrance, postbox
from qm.unix.program import home_from_here
from qm.unix.queueclient import QueueClient
from qm.wire.envelope import Envelope, Recipient


@pytest.mark.parametrize(
    ("where", "want"), [("", b"."), ("home", b".."), ("home/ann", b"../.."), ("..", None), ("../homely", None)]
)
def test_the_home_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, want: bytes | None) -> None:
    """Below the home it is reached upwards; from elsewhere by its path."""
    home = tmp_path / "home"
    (home / where).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(home / where)
    assert home_from_here({b"QMHOME": os.fsencode(home)}) == (want or os.fsencode(home))
    assert home_from_here({b"QMHOME": os.fsencode(home) + b"/"}) == (want or os.fsencode(home))


@pytest.mark.parametrize("address", [b"a\n@b", b"a\r@b", b"a\0@b"])
def test_addresses(address: bytes) -> None:
    """An address with a line end or NUL is refused, whoever wrote it, before anything else happens."""
    for envelope in (Envelope(address, ()), Envelope(b"", (Recipient(b"a@b"), Recipient(address)))):
        with pytest.raises(Permanent, match="line end"):
            postbox.post({}, [], envelope)


def test_no_queue(tmp_path: Path) -> None:
    """Without a queue it is a temporary failure."""
    with pytest.raises(Temporary, match="out of reach"):
        postbox.post({b"QMHOME": os.fsencode(tmp_path)}, [b"x"], Envelope(b"", ()))


def test_an_empty_variable() -> None:
    """An empty QMAILQUEUE is none: the message goes to the service."""
    assert isinstance(entrance.queue({b"QMAILQUEUE": b""}), QueueClient)
    assert not isinstance(entrance.queue({b"QMAILQUEUE": b"true"}), QueueClient)
