"""One connection from this machine, in a worker: greet it, and run the program on descriptors 0 and 1."""

import os
import socket

from qm import errors
from qm.tcpserver.options import ERRORS, VERBOSE, Options
from qm.tcpserver.server import Caller
from qm.tcpserver.serving import Host, greet
from qm.unix import door, log
from qm.unix.chain import Runner
from qm.unix.program import Env
from qm.wire import ucspi
from qm.wire.record import number, pack, unpack
from qm.wire.ucspi import Neighbour

_ID_MAX = (1 << 32) - 1


def meet(channel: socket.socket, _: object) -> Caller:
    """Who had connected, as the kernel has written down then; -C counts by user."""
    ids = door.credentials(channel)
    uid = b"uid %d" % ids[1]
    return Caller(pack(*(b"%d" % one for one in ids)), uid, uid)


def _path(channel: socket.socket) -> bytes:
    """The name of the peer's end, which is his to choose; an abstract one cannot be in an environment."""
    try:
        name = os.fsencode(channel.getpeername())
    except OSError:
        return b""  # it has gone
    return b"" if b"\0" in name else name


class Session:
    def __init__(self, options: Options, base: Env, run: Runner) -> None:
        self._options = options
        self._base = base
        self._host = Host(options.program, run)
        self._pid = os.getpid()

    def __call__(self, record: bytes, descriptors: list[int]) -> bytes:
        """Serve the connection that is the one descriptor; gives the program's exit code in digits."""
        pid, uid, gid = (number(field, _ID_MAX) for field in unpack(record, 3))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors.pop()) as channel:
            return b"%d" % self._serve(channel, Neighbour(pid, uid, gid, _path(channel)))

    def _serve(self, channel: socket.socket, remote: Neighbour) -> int:
        if self._options.verbosity >= VERBOSE:
            log.write_lines(ucspi.ipc_lines(self._pid, self._options.path, remote))
        try:
            greet(channel, self._options.banner)
        except OSError as error:
            if self._options.verbosity >= ERRORS:
                log.warning(self._options.name, f"dropping connection: {error.strerror}")
            return errors.TEMPORARY
        return self._host.serve(channel, ucspi.ipc_environment(self._base, self._options.path, remote))
