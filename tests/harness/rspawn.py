"""qm-rspawn with a test in the place of send."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qm.unix import fds
from qm.wire import queueid
from qm.wire.delivery import Addressee, Delivery, Outcome, Result, pack_delivery, unpack_outcome
from tests.harness.barehome import BareHome
from tests.harness.waiting import LIMIT_S

TEXT: Final = b"Received: by x; y\nSubject: hello\n\nbody\n"
SENDER: Final = b"ann@me.example"


class Rspawn:
    """In *home*; what it logs is in the home's file log.rspawn."""

    def __init__(self, home: BareHome, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._log = home.folder / "log.rspawn"
        self.channel, theirs = fds.pair()
        self.channel.settimeout(LIMIT_S)
        reader, writer = os.pipe()
        with theirs, self._log.open("ab") as log:
            self.process = subprocess.Popen(
                home.command(["qm-rspawn"]), cwd=home.folder, pass_fds=[writer],
                env={**home.environment(), **(environment or {}), "QMREADY": str(writer)},
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=log, user=home.uid, group=home.uid,
                extra_groups=None if home.uid is None else [],
            )  # fmt: skip
        os.close(writer)
        os.read(reader, 1)  # nothing, if it does not start
        os.close(reader)
        self._number = 0

    def give(self, *recipients: bytes, text: bytes = TEXT, sender: bytes = SENDER, flags: bytes = b"") -> int:
        """Hand a delivery out; its number."""
        addressees = tuple(Addressee(place, address) for place, address in enumerate(recipients))
        return self.give_delivery(Delivery(0, queueid.make(1, 1), flags, sender, addressees), text)

    def give_delivery(self, delivery: Delivery, text: bytes = TEXT) -> int:
        self._number += 1
        self.send(pack_delivery(delivery._replace(number=self._number)), text)
        return self._number

    def send(self, record: bytes, text: bytes = TEXT) -> None:
        message = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            with open(message, "wb", closefd=False) as file:
                file.write(text)
            fds.send_record(self.channel, record, [message])
        finally:
            os.close(message)

    def outcome(self, number: int | None = None) -> Outcome:
        """The next outcome, of delivery *number* if that is given."""
        record, _ = fds.recv_record(self.channel)
        assert record, self.log()
        outcome = unpack_outcome(record)
        assert number is None or outcome.number == number
        return outcome

    def deliver(self, *recipients: bytes, text: bytes = TEXT, sender: bytes = SENDER, flags: bytes = b"") -> Outcome:
        return self.outcome(self.give(*recipients, text=text, sender=sender, flags=flags))

    def result(self, *recipients: bytes, text: bytes = TEXT, sender: bytes = SENDER, flags: bytes = b"") -> Result:
        """The result of a delivery to one."""
        (result,) = self.deliver(*recipients, text=text, sender=sender, flags=flags).results
        return result

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def leave(self) -> int:
        """End as send does; the exit code."""
        self.channel.close()
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def rspawn(
    home: BareHome, environment: Mapping[str, str] | None = None, *, alerts: Sequence[str] = ()
) -> Iterator[Rspawn]:
    """One that must end well, without a word that alarms but those of *alerts*."""
    made = Rspawn(home, environment)
    try:
        yield made
        if made.process.poll() is None:
            assert made.leave() == 0
        lines = [line for line in made.log().splitlines() if "alert:" in line]
        assert not [line for line in lines if not any(known in line for known in alerts)], lines
        assert "bug, please report" not in made.log()
    finally:
        made.channel.close()
        if made.process.poll() is None:
            made.kill()


def full_listener() -> tuple[list[socket.socket], int]:
    """A port of 127.0.0.1 that answers no connection: its queue is full.  Close the sockets afterwards."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port: int = listener.getsockname()[1]
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        fillers.append(filler)
    return [listener, *fillers], port
