"""queue/held: messages that a login has sent over a limit of its hour; taken, durable, and nobody works on them.

An administrator releases or deletes them (`qm hold`), or send gives them up when their time in the queue is over.  What
was on hold in another system when `qm import` took it (IMPORTED) has no such time: it had none there.  Each is one
file, and what is done with it is a rename or an unlink: a crash leaves it here or there, never in between.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from qm.disk import queue, queuefile
from qm.disk.queuefile import Corrupt
from qm.disk.regular import open_regular
from qm.disk.trigger import Poker
from qm.wire import queueid
from qm.wire.envelope import Envelope

IMPORTED: Final = b"import"  # in the place of a limit
ALL_MAX: Final = 10_000  # messages of all logins; each one more is held after a look at all of them


def _path(folder: str, name: bytes) -> bytes:
    return os.fsencode(folder) + b"/" + name


def ids() -> list[bytes]:
    """Of all that is held, oldest first; raises OSError, but nothing where there never was anything."""
    try:
        return sorted(filter(queueid.valid, os.listdir(os.fsencode(queue.HELD))))
    except FileNotFoundError:
        return []


def envelope(name: bytes) -> Envelope | None:
    """None if it has gone; raises OSError, Corrupt."""
    try:
        fd = open_regular(_path(queue.HELD, name))
    except FileNotFoundError:
        return None
    try:
        return queuefile.read(fd).envelope
    finally:
        os.close(fd)


def _envelopes(names: list[bytes]) -> Iterator[Envelope]:
    """Of those that can be read."""
    for name in names:
        try:
            found = envelope(name)
        except (OSError, Corrupt):
            continue  # whoever tries to release it is told
        if found is not None:
            yield found


def is_full(login: bytes, most: int) -> bool:
    """Whether *login* has *most* messages here, or all logins have ALL_MAX; raises OSError."""
    names = ids()
    if len(names) < most:
        return False
    return len(names) >= ALL_MAX or sum(found.login == login for found in _envelopes(names)) >= most


def into_new(name: bytes) -> None:
    os.rename(_path(queue.HELD, name), _path(queue.NEW, name))


def sync_new(name: bytes) -> None:
    queue.sync_directory(queue.NEW)


def sync_held(name: bytes) -> None:
    queue.sync_directory(queue.HELD)


def poke(name: bytes) -> None:
    trigger = Poker()
    trigger.poke(name)
    trigger.close()


def remove(name: bytes) -> None:
    os.unlink(_path(queue.HELD, name))


Step = Callable[[bytes], None]
# rename(2) is whole or not at all: after a crash the message is held, or it is new, and then send finds it.
RELEASE: Final[tuple[Step, ...]] = (into_new, sync_new, sync_held, poke)
DELETE: Final[tuple[Step, ...]] = (remove, sync_held)


def run(steps: tuple[Step, ...], name: bytes) -> None:
    """Raises OSError; FileNotFoundError if it is not held, or not any more."""
    for step in steps:
        step(name)
