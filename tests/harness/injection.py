"""Programs that put mail into the queue, and what they have put there."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from qm.disk import queuefile
from qm.wire.envelope import Envelope
from tests.harness.queueservice import PYTHON, QueueService
from tests.harness.suite import BIN

Result = subprocess.CompletedProcess[bytes]
USER: Final = {"USER": "joe", "TZ": "UTC"}


class Queued(NamedTuple):
    message: bytes  # without our Received field
    envelope: Envelope

    @property
    def recipients(self) -> list[bytes]:
        return [recipient.address for recipient in self.envelope.recipients]


class Injection:
    """A queue service, and programs that are run as a user would run them."""

    def __init__(self, service: QueueService) -> None:
        self.service = service
        self.folder = service.home / "work"  # where programs are run
        self.folder.mkdir()

    def run(
        self, *argv: str | bytes, input: bytes = b"", env: Mapping[str, str | bytes] = {}, seekable: bool = False
    ) -> Result:
        """Run a program of ours to its end; *seekable*: its descriptor 0 can be read again, as in a delivery."""
        program, *words = argv
        (self.folder / "input").write_bytes(input)
        with (self.folder / "input").open("rb") as file:
            return subprocess.run(
                [*PYTHON, BIN / os.fsdecode(program), *words],
                **({"stdin": file} if seekable else {"input": input}),  # type: ignore[arg-type]
                env={**self.service.env, **USER, **env},
                cwd=self.folder,
                capture_output=True,
                timeout=60,
                check=False,
            )

    def queued(self) -> list[Queued]:
        """All that is in the queue, in the order in which it came."""
        return [_read(self.service.home / "queue/new" / name) for name in self.service.names("new")]

    def only(self) -> Queued:
        (queued,) = self.queued()
        return queued


def _read(path: Path) -> Queued:
    fd = os.open(path, os.O_RDONLY)
    try:
        file = queuefile.read(fd)
        text = b"".join(queuefile.checked_message(fd, file))
    finally:
        os.close(fd)
    assert text.startswith(b"Received: (qm-queue invoked ")
    return Queued(text.split(b"-0000\n", 1)[1], file.envelope)
