"""queue/held: how much of it there may be, and who sees it."""

from pathlib import Path

import pytest

from qm.disk import held, queue, queueview
from qm.disk.accept import Draft, Store, accept
from qm.wire.envelope import Envelope, Recipient


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue").mkdir()
    queue.make()


def put(login: bytes, limit: bytes = b"limitmessages") -> bytes:
    envelope = Envelope(b"a@b.example", (Recipient(b"c@d.example"),), held=limit, login=login if limit else b"")
    return accept(Store(), Draft(lambda *_: b"Received: x\n", (b"\nbody\n",), lambda: envelope, 1, 2)).name


def test_each_login_has_its_own_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login's messages count against its limit, whoever else's are there, until all together are too many."""
    assert held.is_full(b"ann", 0) and not held.is_full(b"ann", 1)
    for login in (b"ann", b"bob", b"bob"):
        put(login)
    assert [held.is_full(b"ann", most) for most in (1, 2)] == [True, False]
    assert [held.is_full(b"bob", most) for most in (2, 3)] == [True, False]
    assert not held.is_full(b"eve", 1)
    monkeypatch.setattr(held, "ALL_MAX", 3)
    assert held.is_full(b"eve", 1)


def test_views() -> None:
    """All that waits is counted with it; its header can be read, and its body is not a part of that."""
    name, other = put(b"ann"), put(b"", b"")
    assert queueview.held_ids() == held.ids() == [name]
    assert queueview.all_ids() == sorted([name, other])
    view = queueview.look(name)
    assert view is not None and (view.folder, view.envelope.login) == (queue.HELD, b"ann")
    assert queueview.header(name, queue.HELD) == b"Received: x"
    held.run(held.RELEASE, name)
    view = queueview.look(name)
    assert view is not None and view.folder == queue.NEW


def test_a_home_without_it(tmp_path: Path) -> None:
    """In a queue that an older version has made nothing is held."""
    (tmp_path / "queue/held").rmdir()
    assert held.ids() == []
    assert queueview.all_ids() == []
