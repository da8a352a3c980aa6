"""control/smtpauth and its keeper: who talks to other hosts gets the one login that it needs, and cannot read the file.

The keeper is forked before rspawn gives up root, and stays root; it reads that file and nothing else.  rspawn asks it
for the relays that there are logins for, and, with a memory file for each, to write that login into it.  rspawn never
reads these files: a worker that is forked from it has no password in its memory.  It passes one on with each delivery
to that relay.  Without control/smtpauth at the start there is no keeper.
"""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Final

from qm.disk.control import BadControl, Controls
from qm.errors import Temporary
from qm.unix import confine, fds, log
from qm.unix.loop import Loop
from qm.unix.worker import SENT, Trade, live, result
from qm.wire import smtpauth
from qm.wire.record import Malformed, number, pack, unpack
from qm.wire.smtpauth import BadLogin, Login, Relay

NAME: Final = b"qm-rspawn"
TRADE: Final = Trade(NAME, b"keeps logins")
FILE: Final = "smtpauth"
ANSWER_S: Final = 10.0
_WRONG: Final = b"!"  # before what is wrong with the file
_FINE: Final = b"+"
_LIST: Final = b"list"
_GIVE: Final = b"give"
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class _Keeper:
    """What the keeper itself does; one question is one job."""

    def __init__(self) -> None:
        confine.gain_nothing()
        self._logins: Mapping[Relay, Login] = {}

    def __call__(self, record: bytes, descriptors: list[int]) -> bytes:
        what, host, port = unpack(record, 3)
        if what == _GIVE and len(descriptors) == 1:
            return self._give((host, number(port, 65535)), descriptors[0])
        try:
            return _FINE + pack(*self._list())
        except (BadControl, BadLogin) as error:
            return _WRONG + error.detail.encode("utf-8", "replace")

    def _list(self) -> Iterator[bytes]:
        """Read the file anew; host and port of each relay."""
        self._logins = smtpauth.parse(Controls((FILE,)).lines(FILE))
        for host, port in self._logins:
            yield from (host, b"%d" % port)

    def _give(self, relay: Relay, fd: int) -> bytes:
        os.pwrite(fd, smtpauth.pack_login(self._logins[relay]), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return _FINE


def start() -> "Keeper | None":
    """To be called while we are root; None where there is no control/smtpauth.  Raises Temporary."""
    if not os.path.lexists(f"control/{FILE}"):
        return None
    ours, theirs = fds.pair()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SENT)
    try:
        if os.fork() == 0:
            live(Loop(), TRADE, theirs, _Keeper, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return Keeper(ours)


class Keeper:
    """rspawn's side: the relays that there are logins for, each with a descriptor that is for its workers."""

    def __init__(self, channel: socket.socket) -> None:
        """Raises Temporary for a file that is broken or that others can read."""
        self._channel = channel
        channel.settimeout(ANSWER_S)
        self._logins: dict[Relay, int] = {}
        self.refresh()

    def find(self, relay: Relay) -> int | None:
        """The descriptor of a login, or None."""
        return self._logins.get(relay)

    def refresh(self) -> None:
        """Have the file read anew; raises Temporary, and what was known stays."""
        found: dict[Relay, int] = {}
        try:
            words = self._ask(pack(_LIST, b"", b"")).split(b"\0")[:-1]
            for host, port in zip(words[::2], words[1::2], strict=True):
                relay = host, number(port, 65535)
                found[relay] = os.memfd_create("login", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                self._ask(pack(_GIVE, host, port), found[relay])
        except (OSError, Malformed) as error:
            fds.close_all(found.values())
            raise Temporary("cannot read a control file", detail=f"control/{FILE}: {error}") from error
        except Temporary:
            fds.close_all(found.values())
            raise
        known, self._logins = self._logins, found
        fds.close_all(known.values())

    def _ask(self, record: bytes, *descriptors: int) -> bytes:
        """Raises OSError, Temporary."""
        fds.send_record(self._channel, record, descriptors)
        answer = result(self._channel)
        if answer is None:
            raise ConnectionResetError("its keeper has gone; start us again")
        if answer.startswith(_WRONG):
            raise Temporary("a control file is broken", detail=answer[1:].decode("utf-8", "replace"))
        return answer[1:]


def warn_of_new_file() -> None:
    if os.path.lexists(f"control/{FILE}"):
        log.warning(NAME, f"control/{FILE} is new: it counts after a restart")
