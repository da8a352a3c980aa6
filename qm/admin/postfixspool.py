"""A Postfix's queue, as its master has left it."""

import os
from collections.abc import Iterator
from typing import Final

from qm.admin.findings import Finding
from qm.admin.fromqmail import is_locked
from qm.admin.queueimport import Source

_QUEUES: Final = {  # and of what kind a message in it is
    "incoming": b"postfix", "active": b"postfix", "deferred": b"postfix", "hold": b"postfix-hold",
    "maildrop": b"postfix-maildrop",
}  # fmt: skip
_LEFT: Final = {  # what else is there, and is not carried over
    "corrupt": "message: Postfix calls it corrupt",
    "trace": "who asked to be told that mail was delivered is not told",
}


class Spool:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def runs(self) -> str:
        """Why the queue may change under our hands; empty if it does not."""
        return "its master runs" if is_locked(os.path.join(self._folder, "pid/master.pid")) else ""

    def queue(self) -> Iterator[Source | Finding]:
        """What a master that runs no more has left: also in active/, and failures in bounce/ that were not told."""
        bounces = {os.path.basename(path): path for path in self._files("bounce")}
        for queue, kind in _QUEUES.items():
            for path in self._files(queue):
                name = os.path.basename(path)
                if os.stat(path, follow_symlinks=False).st_mode & 0o100:
                    yield Source(kind, name, (path, bounces[name]) if name in bounces else (path,))
                else:
                    yield Finding(path, "message: it was being written; nobody was told that it is there", True)
        for queue, why in _LEFT.items():
            yield from (Finding(path, why, False) for path in self._files(queue))

    def _files(self, queue: str) -> Iterator[str]:
        for folder, _, names in os.walk(os.path.join(self._folder, queue)):
            yield from (os.path.join(folder, name) for name in sorted(names))
